"""Text from files and folders, cut into windows."""

import codecs
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_io.processors import BytesTokenizer
from perceiver_io.training import Draw
from perceiver_io.training.data.skipping import SkipUnusable
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
    with pytest.raises(ValueError, match=r"has no text files \(endings: \.md, \.rst, \.text, \.txt, \.jsonl, "):
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


@given(
    texts=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5),
    length=st.integers(1, 20),
    share=st.floats(0.05, 0.9),
)
def test_files_are_read_as_texts_at_hand(
    texts: list[bytes], length: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    texts = [b"x" + text for text in texts]  # no byte order mark
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text)
    for from_files, at_hand in zip(
        split_documents(read_documents(folder), share), split_documents(texts, share), strict=True
    ):
        assert list(map(bytes, from_files)) == list(map(bytes, at_hand))
        if sum(map(len, at_hand)) >= length:
            one, other = TextWindows(from_files, length), TextWindows(at_hand, length)
            assert one.fingerprint() == other.fingerprint()
            for index in range(len(one)):
                assert one[Draw(index, 5)]["tokens"].equal(other[Draw(index, 5)]["tokens"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-32-be"])
def test_byte_order_marks_are_no_part_of_the_text(encoding: str, tmp_path: Path) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    (tmp_path / "text.txt").write_bytes(mark + "Ein Bär.".encode(encoding))
    (document,) = read_documents(tmp_path / "text.txt")
    assert bytes(document).decode() == "Ein Bär."


def test_a_mark_alone_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(codecs.BOM_UTF8)
    with pytest.raises(ValueError, match="holds no text: the file is empty"):
        read_documents(tmp_path / "text.txt")


def test_a_text_that_is_not_what_its_mark_says(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(codecs.BOM_UTF16_LE + b"odd")
    with pytest.raises(ValueError, match=r"text\.txt begins as UTF-16 does, but is not"):
        read_documents(tmp_path / "text.txt")


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number}.txt").write_text("a page of a book\n")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, usual[1]))
    try:
        windows = TextWindows(read_documents(tmp_path), 5000)
        assert [len(windows[Draw(index, 0)]["tokens"]) for index in range(2)] == [5000, 5000]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_file_that_is_cut_short_meanwhile_is_named_and_others_take_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name * 10_000)
    windows = TextWindows(read_documents(tmp_path), 100)
    with (tmp_path / "a.txt").open("r+") as file:
        file.truncate(50)
    with pytest.raises(ValueError, match=r"a\.txt has become shorter: bytes up to 4\d\d are missing; leave the text"):
        windows[Draw(3, 0)]
    usable = SkipUnusable(windows)
    assert all((usable[Draw(index, 0)]["tokens"] == ord("b") + 6).all() for index in range(5, 60))
    assert windows[Draw(len(windows) - 1, 0)]["tokens"].shape == (100,)


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: "x" + text[1:], lambda text: text + "x"])
def test_another_text_has_another_fingerprint(change: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("A text. " * 100)
    before = TextWindows(read_documents(path), 20).fingerprint()
    assert TextWindows(read_documents(path), 20).fingerprint() == before
    assert TextWindows(read_documents(path), 21).fingerprint() != before
    path.write_text(change(path.read_text()))
    assert TextWindows(read_documents(path), 20).fingerprint() != before


def test_the_fingerprint_of_a_long_text_is_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(range(256)) * (1 << 16))
    windows = TextWindows(read_documents(path), 20)
    before = windows.fingerprint()
    with path.open("r+b") as file:
        file.write(b"another beginning")
    assert windows.fingerprint() != before
