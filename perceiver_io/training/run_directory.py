"""A run's directory: one run in it at a time, and nothing left of one that was killed."""

import os
import platform
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; there the user has to take care
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "run.lock"


@contextmanager
def occupied(directory: Path, files: Sequence[str] = ()) -> Iterator[None]:
    """Within the block no other process enters a block for this directory, which is made if it is not there.

    The lock is the system's, and ends with the process however that ends.

    Args:
        directory: of the run.
        files: names of files that runs write in it by way of temporary ones, whose remains are removed.

    Raises:
        ValueError: if another process is in such a block, naming it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / LOCK_FILE, directory) as lock:
        with suppress(OSError):  # a full disk
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}\n")
            lock.flush()
        for name in files:
            for leftover in directory.glob(f".{name}.*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


@contextmanager
def _locked(path: Path, directory: Path) -> Iterator[TextIOWrapper]:
    while True:
        with path.open("a+", encoding="utf-8") as file:
            try:
                # Record locks: processes that are forked, which load data, do not keep them.
                if fcntl is not None:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                other = file.read().strip() or "of an unknown process"
                raise ValueError(
                    f"{directory} is in use by another run ({other}); wait for it, or choose another directory"
                ) from error
            except OSError as error:  # some network file systems
                warnings.warn(f"{path} cannot be locked ({error}); start no other run in its directory", stacklevel=4)
            if not _is_still_at(path, file):  # the run before has just removed it
                continue
            try:
                yield file
            finally:
                with suppress(OSError):
                    path.unlink()
            return


def _is_still_at(path: Path, file: TextIOWrapper) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
