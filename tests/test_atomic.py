"""Files appear whole or not at all, and nothing is left of what failed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perceiver_io.atomic import new_directory, new_file, new_files


def entries(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), new_file(path) as file:
        file.write_text("half")
        raise OSError("disk full")
    assert entries(tmp_path) == {"result.txt"}
    assert path.read_text() == "old"
    with new_file(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert entries(tmp_path) == {"result.txt"}
    assert path.read_text() == "new"


def test_files_appear_together(tmp_path: Path) -> None:
    directory = tmp_path / "deeply" / "within"
    with new_files(directory) as folder:
        for name in ("one", "two"):
            (folder / name).write_text(name)
        assert {path.name for path in directory.iterdir()} == {folder.parent.name}
    assert {path.name: path.read_text() for path in directory.iterdir()} == {"one": "one", "two": "two"}
    # Other files of the directory stay, those of the same name are replaced.
    with new_files(directory) as folder:
        (folder / "two").write_text("too")
    assert {path.name: path.read_text() for path in directory.iterdir()} == {"one": "one", "two": "too"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_what_failed(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_files(tmp_path / "deeply" / "within") as folder:
        (folder / "one").write_text("one")
        raise error
    assert entries(tmp_path) == set()


def test_a_directory_that_others_use_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"), new_files(tmp_path / "deeply" / "within"):
        (tmp_path / "deeply" / "other").write_text("of others")
        raise OSError("disk full")
    assert entries(tmp_path) == {"deeply", "deeply/other"}


def test_no_file_replaces_a_directory(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with (
        pytest.raises(IsADirectoryError, match="two is a directory, but the result should"),
        new_files(tmp_path) as folder,
    ):
        for name in ("one", "two"):
            (folder / name).write_text(name)
    assert entries(tmp_path) == {"two"}


OPERATIONS = (
    (os, "fsync"),
    *((Path, name) for name in ("rename", "replace", "unlink", "mkdir", "chmod", "touch")),
)


class Interrupter:
    """Lets an exception come up right after (or in place of) the n-th file operation."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, error: type[BaseException], before: bool) -> None:
        self.count = 0
        for owner, name in OPERATIONS:
            original: Callable[..., object] = getattr(owner, name)

            def operate(*args: object, original: Callable[..., object] = original, **kwargs: object) -> object:
                self.count += 1
                if before and self.count == number:
                    raise error
                result = original(*args, **kwargs)
                if not before and self.count == number:
                    raise error
                return result

            patch.setattr(owner, name, operate)


@contextmanager
def _directory(path: Path) -> Iterator[Path]:
    with new_directory(path, replaceable=("one", "two", "three")) as folder:
        yield folder


@pytest.mark.parametrize("write", [_directory, new_files])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_old_or_new_but_nothing_between_wherever_it_is_interrupted(
    write: Callable[[Path], Iterator[Path]],
    error: type[BaseException],
    before: bool,
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = {"one": "old", "three": "old"} if there else {}, {"one": "new", "two": "new"}
    interrupted = 0
    for number in range(1, 60):
        directory = tmp_path / str(number)
        if there:
            directory.mkdir()
            for name, text in old.items():
                (directory / name).write_text(text)
        with monkeypatch.context() as patch:
            Interrupter(patch, number, error, before)
            try:
                with write(directory) as folder:  # type: ignore[attr-defined]
                    for name, text in new.items():
                        (folder / name).write_text(text)
                is_over = True
            except error:
                interrupted += 1
                is_over = False
        found = {file.name: file.read_text() for file in directory.iterdir()} if directory.is_dir() else {}
        kept = {"three": "old"} if there and write is new_files else {}
        assert found in (old, {**kept, **new}), number
        assert len(list(tmp_path.glob(".*"))) == 0, number
        if is_over:
            break
    assert 5 <= interrupted < 58


def _a_file(path: Path) -> None:
    with new_file(path / "one") as file:
        file.write_text("new")


def _a_file_that_keeps_the_old(path: Path) -> None:
    with new_file(path / "one", keep=path / "two") as file:
        file.write_text("new")


def _some_files(path: Path) -> None:
    with new_files(path) as folder:
        for name in ("one", "two"):
            (folder / name).write_text(f"new {name}")


def _a_directory(path: Path) -> None:
    with new_directory(path, replaceable=("one", "two")) as folder:
        for name in ("one", "two"):
            (folder / name).write_text(f"new {name}")


class Disk:
    """Follows what is on the disk for sure: what had its `fsync` after the last change."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.contents: set[tuple[int, int, int]] = set()
        self.names: dict[int, set[str]] = {}
        self.removed: list[dict[int, set[str]]] = []
        fsync, rmtree = os.fsync, shutil.rmtree

        def follow(handle: int) -> None:
            fsync(handle)
            status, path = os.fstat(handle), Path(f"/proc/self/fd/{handle}").readlink()
            self.contents.add((status.st_ino, status.st_size, status.st_mtime_ns))
            if path.is_dir():
                self.names[status.st_ino] = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}

        def remove(path: Path, **options: object) -> None:
            self.removed.append(dict(self.names))
            rmtree(path, **options)

        patch.setattr(os, "fsync", follow)
        patch.setattr(shutil, "rmtree", remove)

    def holds(self, file: Path) -> bool:
        status = file.stat()
        return (status.st_ino, status.st_size, status.st_mtime_ns) in self.contents


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux for the names of open files")
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("write", [_a_file, _a_file_that_keeps_the_old, _some_files, _a_directory])
def test_files_are_on_the_disk_before_anything_goes_for_them(
    write: Callable[[Path], None], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deeply" / "within"
    if there:
        path.mkdir(parents=True)
        for name in ("one", "two"):
            (path / name).write_text("old")
    disk = Disk(monkeypatch)
    taken: list[Path] = []
    for name in ("rename", "replace"):
        move: Callable[[Path, Path], Path] = getattr(Path, name)

        def moved(source: Path, target: Path, move: Callable[[Path, Path], Path] = move) -> Path:
            if target.parent in (path, path.parent) and source.parent != path:
                files = [source] if source.is_file() else list(source.iterdir())
                assert all(map(disk.holds, files))
                taken.extend(files)
            return move(source, target)

        monkeypatch.setattr(Path, name, moved)
    write(path)
    assert len(taken) == (1 if "file" in write.__name__ and "files" not in write.__name__ else 2)
    # The temporary directory, with the old files in it, goes when the new names are there for sure.
    assert len(disk.removed) == 1
    for folder in (path,) if there else (path, path.parent, tmp_path):
        assert disk.removed[0][folder.stat().st_ino] == {entry.name for entry in folder.iterdir()}


def test_a_disk_that_cannot_take_a_file_is_told_of_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (_a_file, _a_file_that_keeps_the_old, _some_files, _a_directory):
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path)
        assert entries(tmp_path) == {"one"}
        assert (tmp_path / "one").read_text() == "old"


def test_file_systems_that_cannot_tell_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    _some_files(tmp_path)
    assert entries(tmp_path) == {"one", "two"}


@pytest.mark.parametrize("another_thread", [False, True])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_until_files_are_in_their_places(
    kind: signal.Signals, another_thread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system gives the signal to another thread, which Python has raise it in the main one."""
    (tmp_path / "one").write_text("old")
    rename = Path.rename
    over = threading.Event()
    other = threading.Thread(target=over.wait)

    def interrupted(self: Path, target: Path) -> Path:
        result = rename(self, target)
        if another_thread:
            assert other.ident is not None
            signal.pthread_kill(other.ident, kind)
        else:
            os.kill(os.getpid(), kind)
        for _ in range(1000):  # where Python looks for signals
            pass
        return result

    monkeypatch.setattr(Path, "rename", interrupted)
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    other.start()
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), new_files(tmp_path) as folder:
            (folder / "one").write_text("new")
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) == usual[signal.SIGINT]
    finally:
        over.set()
        other.join()
        signal.signal(signal.SIGTERM, usual[signal.SIGTERM])
    assert (tmp_path / "one").read_text() == "new"


def test_a_thread_writes_files_without_a_word_on_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=_some_files, args=(tmp_path,))
    thread.start()
    thread.join()
    assert entries(tmp_path) == {"one", "two"}


def test_what_a_killed_process_left_behind_is_removed_by_the_next(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from perceiver_io.atomic import new_directory
with new_directory(Path({str(tmp_path / "model")!r})) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(entries(tmp_path)) == 3
    with new_directory(tmp_path / "model") as folder:
        (folder / "whole").write_text("whole")
    assert entries(tmp_path) == {"model", "model/whole"}


def test_directories_that_are_there_stay_the_ones_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    number = target.stat().st_ino
    for path in (link, Path()):
        monkeypatch.chdir(target)
        with new_directory(path, replaceable={"file"}) as folder:
            (folder / "file").write_text(str(path))
        assert link.is_symlink()
        assert target.stat().st_ino == number
        assert (target / "file").read_text() == str(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="is a link to what does not exist"), new_directory(tmp_path / "dangling"):
        pass


def test_a_directory_is_never_deleted_for_having_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "precious").touch()
    with pytest.raises(FileExistsError, match="file would be lost"), new_directory(tmp_path, replaceable={"file"}):
        pass
    assert (tmp_path / "file" / "precious").exists()
