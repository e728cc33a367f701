"""Optional packages: a clear message where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(purpose: str, extra: str = "examples") -> Iterator[None]:
    """Maps imports inside the block to an ImportError that says which command installs what is missing.

    Importing perceiver_io needs torch and numpy only; files of pictures, sound and video need more.

    Args:
        purpose: what the package is for, as the start of the message: "reading pictures".
        extra: the extra of this library that the package comes with.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {error.name}; install it with: pip install 'perceiver-io-torch[{extra}]'",
            name=error.name,
        ) from error
