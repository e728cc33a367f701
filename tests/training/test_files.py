"""Files in a folder: hidden ones left out, links followed, each file once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.training.data.files import data_files, is_hidden
from perceiver_io.training.data.flow import find_pairs
from perceiver_io.training.data.text import read_documents
from tests.training.test_flow import write_chairs

NAMES = st.sampled_from(["a", "b", "c.txt", "d.TXT", "._c.txt", ".git", "__MACOSX", "@eaDir", "e.png", ".hidden.txt"])
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12)


@given(files=PATHS, links=st.lists(st.tuples(PATHS.map(lambda paths: (paths or ["x"])[0]), NAMES), max_size=4))
def test_every_visible_file_is_found_once_and_no_other(
    files: list[str], links: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for name in files:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        except OSError:  # a folder of that name, or a file where a folder should be
            continue
    for name, target in links:
        try:
            (folder / name).symlink_to(folder / target)
        except OSError:
            continue
    found = data_files(folder, (".txt",))
    assert found == sorted(found)
    assert len({path.resolve() for path in found}) == len(found)
    for path in found:
        assert path.is_file()
        assert not any(map(is_hidden, path.relative_to(folder).parts))
        assert path.name.lower().endswith(".txt")
    # All that is visible without going through a link is there, under one name or another.
    resolved = {path.resolve() for path in found}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            path = Path(parent, name)
            if not is_hidden(name) and name.lower().endswith(".txt") and path.is_file():
                assert path.resolve() in resolved


def test_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "one.txt").write_text("one")
    data = tmp_path / "data"
    data.mkdir()
    (data / "folder").symlink_to(outside)
    (data / "again").symlink_to(outside / "deep")  # the same files by another way
    (data / "file.txt").symlink_to(outside / "deep" / "one.txt")
    (data / "up").symlink_to(data)
    (data / "self.txt").symlink_to(data / "self.txt")
    (data / "nowhere.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(data / "pipe.txt")  # whoever opens it waits forever
    assert [path.resolve() for path in data_files(data, (".txt",))] == [outside / "deep" / "one.txt"]


def test_a_folder_that_is_hidden_itself_may_be_named(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "a").mkdir(parents=True)
    (tmp_path / ".cache" / "a" / "b.txt").write_text("b")
    assert [path.name for path in data_files(tmp_path / ".cache", (".txt",))] == ["b.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PermissionError, match="closed"):
        data_files(tmp_path, (".txt",))


def test_all_kinds_of_data_leave_hidden_files_out(tmp_path: Path) -> None:
    pair = write_chairs(tmp_path / "pairs")
    (tmp_path / "pairs" / f"._{pair.flow.name}").write_bytes(b"resource fork")
    (tmp_path / "pairs" / ".trash").mkdir()
    write_chairs(tmp_path / "pairs" / ".trash", 2)
    assert find_pairs(tmp_path / "pairs") == [pair]
    (tmp_path / "texts" / ".git").mkdir(parents=True)
    for name in ("book.txt", "._book.txt", ".git/description.txt"):
        (tmp_path / "texts" / name).write_text(name)
    assert [bytes(document) for document in read_documents(tmp_path / "texts")] == [b"book.txt"]
