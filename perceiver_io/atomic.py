"""Writing files so that nothing is overwritten by accident, left half-written, or lost on the way.

New files are written beside their place, with the modes that the user's umask gives, and renamed. Their content is on
the disk before they take their names, and the names are before anything goes that they replace, so that a machine that
stops loses nothing either. Where several take the place of others, these are put back if that fails or is interrupted.
What a killed process has left behind is removed by the next one that writes to the same place.
"""

import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


@contextmanager
def new_file(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Yields a temporary file's path beside `path`, with its ending, that takes its name if the block succeeds.

    Args:
        keep: the name that a file of the name gets. A kill between the two may leave this one alone.
    """
    with _workplace(path.parent, path.name) as temporary:
        written = temporary / path.name
        yield written
        _finish(temporary)
        if keep is not None and path.exists():
            path.replace(keep)
        written.replace(path)
        _to_disk(path.parent)


@contextmanager
def new_files(directory: Path) -> Iterator[Path]:
    """Yields a temporary directory within `directory`, which takes in the files written there if the block succeeds.

    If it fails, nothing is changed; directories that were made for it are removed again.

    Raises:
        IsADirectoryError: if a file would have the name of a directory that is there.
    """
    with _workplace(directory, "writing") as temporary:
        written = temporary / "new"
        written.mkdir()
        yield written
        _take_in(written, directory, temporary / "old")


@contextmanager
def new_directory(path: Path, *, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """Yields a temporary directory beside `path` that takes its name if the block succeeds.

    A directory that is there already takes the files in and stays the directory that it is: the current one, a mounted
    one, or one that `path` links to.

    Args:
        replaceable: names of files that a directory may hold to be replaced. One that holds anything else is kept.

    Raises:
        FileExistsError: if `path` is a file, or a directory with files that may not be replaced.
    """
    check_replaceable(path, replaceable)
    path = path.resolve()
    with _workplace(path if path.is_dir() else path.parent, path.name) as temporary:
        written = temporary / "new"
        written.mkdir()
        yield written
        if path.is_dir():
            _take_in(written, path, temporary / "old", replaceable)
        else:
            _finish(written)
            _to_disk(written)
            written.rename(path)
            _to_disk(path.parent)


def check_replaceable(path: Path, replaceable: Collection[str]) -> None:
    """Checks that nothing but files of these names would be lost if `path` became another directory.

    Raises:
        FileExistsError: if something would.
    """
    if not path.exists():
        if path.is_symlink():
            raise FileExistsError(f"{path} is a link to what does not exist; remove it or choose another name")
        return
    names = {path.name}
    if path.is_dir():
        names = {
            entry.name
            for entry in path.iterdir()
            if (entry.name not in replaceable or entry.is_dir()) and not _is_left_behind(entry, path.resolve().name)
        }
    if names:
        ways_out = "choose another name or remove it" if replaceable else "choose another name or ask to overwrite it"
        raise FileExistsError(f"{path} already exists and {', '.join(sorted(names)[:5])} would be lost; {ways_out}")


@contextmanager
def _workplace(directory: Path, name: str) -> Iterator[Path]:
    """Yields a hidden temporary directory within one that is made if need be, and unmade if the block fails."""
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for entry in list(directory.iterdir()):
        if _is_left_behind(entry, name):
            for file in (entry / "old").glob("*"):  # it was killed between taking old files away and putting new ones
                if not (directory / file.name).exists():
                    file.rename(directory / file.name)
            shutil.rmtree(entry, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name[:100]}.writing-{os.getpid()}-", dir=directory))
    try:
        yield temporary
        for folder in made:
            _to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # others have put something there by now
                folder.rmdir()
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _is_left_behind(entry: Path, name: str) -> bool:
    """Whether an entry of a directory is the workplace of a process that is no more."""
    match = re.fullmatch(rf"\.{re.escape(name[:100])}\.writing-(\d+)-[a-z0-9_]{{8}}", entry.name)
    if match is None or not entry.is_dir():
        return False
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass
    return False


def _take_in(written: Path, directory: Path, old: Path, replaceable: Collection[str] = ()) -> None:
    """Moves files into a directory, all or none; those that they replace, and other replaceable ones, go.

    Raises:
        IsADirectoryError: if a file would have the name of a directory that is there.
    """
    _finish(written)
    files = sorted(file.name for file in written.iterdir())
    for taken in (directory / name for name in files):
        if taken.is_dir():
            raise IsADirectoryError(f"{taken} is a directory, but the result should be a file of that name")
    old.mkdir()
    going = sorted({*files, *replaceable})
    # Ctrl-C last, which comes most often and must not end what puts the other back.
    with _waits(signal.SIGINT), _waits(signal.SIGTERM):
        try:
            for name in going:
                if os.path.lexists(directory / name):
                    (directory / name).rename(old / name)
            for name in files:
                (written / name).rename(directory / name)
        except BaseException:
            for name in going:
                if os.path.lexists(old / name):
                    (old / name).replace(directory / name)
                elif name in files and not (written / name).exists():
                    (directory / name).unlink(missing_ok=True)
            raise
        _to_disk(directory)


@contextmanager
def _waits(number: signal.Signals) -> Iterator[None]:
    """Holds a signal back within the block.

    By a handler, and not by a mask, which is one thread's: another would take the signal, and Python would still raise
    here. In other threads than the main one Python raises nothing.
    """
    usual = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or usual in (signal.SIG_IGN, None):
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(number, note)
    try:
        yield
    finally:
        signal.signal(number, usual)
        if came:
            signal.raise_signal(number)


def _finish(directory: Path) -> None:
    """Brings the files in a directory to the disk, with the mode that the user's umask gives new ones.

    Some libraries write files that others cannot read.
    """
    probe = directory / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for entry in directory.rglob("*"):
        if entry.is_symlink():
            continue
        if entry.is_file():
            entry.chmod(mode)
        _to_disk(entry)


def _to_disk(path: Path) -> None:
    """Waits until a file's content, or the names in a directory, are on the disk, where the system can tell.

    Raises:
        OSError: if they cannot get there, with the path.
    """
    if os.name == "nt" and path.is_dir():  # Windows opens none
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # some network file systems
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)
