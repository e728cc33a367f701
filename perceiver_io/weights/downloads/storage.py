"""Records of downloads: their hashes; and a lock, so that one process at a time makes one."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perceiver_io.atomic import new_file
from perceiver_io.weights.downloads.http import DownloadError


class HashRecord:
    """The SHA-256 that a file had when it was first downloaded, in `FILE.sha256`, as `sha256sum -c` reads it."""

    def __init__(self, file: Path) -> None:
        self.name = file.name
        self.path = file.with_name(f"{file.name}.sha256")

    def check(self, content: Path) -> str:
        """Maps a downloaded file to its hash.

        Raises:
            ValueError: if the first download had another.
        """
        with content.open("rb") as file:
            sha256 = hashlib.sha256()
            while block := file.read(1 << 20):
                sha256.update(block)
        recorded = self.path.read_text(encoding="ascii").split()[:1] if self.path.exists() else []
        if recorded and recorded[0] != sha256.hexdigest():
            raise ValueError(
                f"{self.name} has changed: its sha256 is {sha256.hexdigest()}, and was {recorded[0]} at the first "
                f"download; it was not kept. If you trust the new file, remove {self.path} and download again"
            )
        return sha256.hexdigest()

    def write(self, sha256: str) -> None:
        """Records a hash."""
        with new_file(self.path) as temporary:
            temporary.write_text(f"{sha256}  {self.name}\n", encoding="ascii")


@contextmanager
def sole_user(directory: Path) -> Iterator[None]:
    """Makes a directory, and keeps other processes that ask for it out of it within the block.

    What was made is removed afterwards if nothing was put there. On Windows, and where the file system has no locks,
    nobody is kept out.

    Raises:
        DownloadError: if another process is within such a block.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(directory):
            yield
    finally:
        with suppress(OSError):  # not empty, nor are those above it
            for folder in made:
                folder.rmdir()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl
    import os

    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another process is downloading to {directory}; wait until it has ended") from error
        except OSError:  # some network file systems
            pass
        yield
    finally:
        os.close(handle)
