"""Text from files and folders, cut into windows."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from perceiver_io.processors import BytesTokenizer
from perceiver_io.training import Draw
from perceiver_io.training.data.text import TextWindows, read_documents, split_documents


def text_of(tokens: Tensor) -> str:
    return BytesTokenizer().decode(tokens)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two texts at different depths, an empty one, and a file of another kind."""
    for name, text in {"b.txt": "second", "a/deep/x.MD": "first", "empty.rst": "", "notes.pdf": "%PDF"}.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "texts"


def test_windows_lie_side_by_side_across_documents() -> None:
    windows = TextWindows([b"abcde", b"", b"fgh", "ij\u00e9".encode()], 4, random_positions=False)
    assert windows.num_bytes == len("abcde\n\nfgh\n\nijé".encode()) == 16
    assert [text_of(windows[Draw(index, 7)]["tokens"]) for index in range(len(windows))] == [
        "abcd",
        "e\n\nf",
        "gh\n\n",
        "ijé",
    ]


def test_windows_are_moved_by_less_than_their_length() -> None:
    text = bytes(range(97, 123)) * 2
    windows = TextWindows([text], 10)
    starts = {text.index(text_of(windows[Draw(1, seed)]["tokens"]).encode()) for seed in range(200)}
    assert starts == set(range(10, 20))
    assert all(len(windows[Draw(len(windows) - 1, seed)]["tokens"]) == 10 for seed in range(20))


def test_the_same_draw_gives_the_same_window() -> None:
    windows = TextWindows([bytes(range(97, 123)) * 3], 8)
    first, second = (windows[Draw(2, 5)]["tokens"] for _ in range(2))
    assert first.equal(second)


def test_a_window_longer_than_the_text() -> None:
    with pytest.raises(ValueError, match=r"the text has 8 bytes, fewer than a window of 9; give more text"):
        TextWindows([b"abc", b"def"], 9)


def test_a_file(folder: Path) -> None:
    (document,) = read_documents(folder / "b.txt")
    assert bytes(document) == b"second"


def test_a_folder(folder: Path) -> None:
    assert [bytes(document) for document in read_documents(folder)] == [b"first", b"second"]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing does not exist; give a text file or a folder"):
        read_documents(tmp_path / "missing")


def test_a_folder_without_texts(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"PNG")
    with pytest.raises(ValueError, match=r"has no text files \(endings: \.md, \.rst, \.text, \.txt\)"):
        read_documents(tmp_path)


@pytest.mark.parametrize("name", ["texts/empty.rst", "texts/only"])
def test_empty_files(folder: Path, name: str) -> None:
    (folder / "only").mkdir()
    (folder / "only" / "nothing.txt").touch()
    with pytest.raises(ValueError, match=r"holds no text: (the file is|its files are) empty"):
        read_documents(folder.parent / name)


def test_the_last_part_is_held_out() -> None:
    documents = [np.frombuffer(text, np.uint8) for text in (b"abcdef", b"ghijkl", b"mnopqrst")]
    training, held_out = split_documents(documents, held_out_share=0.5)
    assert [bytes(document) for document in training] == [b"abcdef", b"ghij"]
    assert [bytes(document) for document in held_out] == [b"kl", b"mnopqrst"]
