"""The border to other libraries and to files: whatever is raised there becomes an error of ours that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perceiver_io.atomic import new_file

# Larger pictures, and frames of films, are refused before anything is decoded: a few bytes can claim to be gigabytes.
# Pillow, too, takes more for a decompression bomb.
MAX_PIXELS = 89_000_000
_LONGEST_REASON = 300


class UnreadableError(ValueError):
    """A file that cannot be read; the message names it."""


@contextmanager
def reading(path: str | Path, rule: str) -> Iterator[None]:
    """Turns whatever a library raises within the block into an error that names the file.

    Args:
        rule: says what the file should have been: "a picture that Pillow can read".

    Raises:
        UnreadableError: for any exception in the block.
    """
    try:
        yield
    except UnreadableError:
        raise
    except MemoryError as error:
        raise UnreadableError(f"{path} does not fit into memory; give a smaller file") from error
    except Exception as error:
        raise UnreadableError(f"{path} is not {rule}: {reason(error)}") from error


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which becomes the file if the block succeeds; if it fails, nothing is left.

    Raises:
        OSError: for any exception in the block; it names the file.
    """
    path = Path(path)
    try:
        with new_file(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{path} cannot be written: {reason(error)}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        raise OSError(f"{path} cannot be written: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Maps an exception to one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def check_size(path: object, height: int, width: int) -> None:
    """Checks that a picture has pixels, and not more than anyone needs.

    Raises:
        UnreadableError: it has none or too many; the message names it.
    """
    if height < 1 or width < 1:
        raise UnreadableError(f"{path} has {height}×{width} pixels; each side must be at least 1")
    if height * width > MAX_PIXELS:
        raise UnreadableError(
            f"{path} has {height}×{width} pixels, more than {MAX_PIXELS // 10**6} million; make it smaller first"
        )
