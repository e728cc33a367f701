"""Optional packages: a clear message where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(purpose: str) -> Iterator[None]:
    """Imports inside the block → an ImportError that says which command installs what is missing.

    Importing perceiver_io needs torch and numpy only; files of pictures, sound and video need more.

    Args:
        purpose: what the package is for, as the start of the message: "reading pictures".
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {error.name}; install it with: pip install 'perceiver-io[examples]'",
            name=error.name,
        ) from error
