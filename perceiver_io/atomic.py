"""Writing files so that nothing is overwritten by accident and nothing is left half-written."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file's path beside `path`, with its ending, that takes its name if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary / path.name
        (temporary / path.name).replace(path)
    finally:
        shutil.rmtree(temporary)


@contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary directory beside `path` that takes its name if the block succeeds.

    Raises:
        FileExistsError: if `path` is a file, or a directory that is not empty unless `overwrite`.
    """
    if path.exists() and not (path.is_dir() and (overwrite or not any(path.iterdir()))):
        raise FileExistsError(f"{path} already exists; choose another name, remove it or ask to overwrite it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as parent:
        written, replaced = Path(parent) / "new", Path(parent) / "old"
        written.mkdir()
        yield written
        if path.exists():
            path.rename(replaced)
        written.rename(path)
