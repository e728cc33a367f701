"""Text files: byte order marks are no part of the text."""

import codecs
from pathlib import Path

import pytest

from perceiver_io.media import read_text

TEXT = "Größe [MASK], 🙂.\nEnde"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
    ],
)
def test_marks_and_line_ends_are_no_part_of_the_text(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    assert read_text(tmp_path / "text.txt") == TEXT


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"old\.txt is not UTF-8 text: invalid start byte at byte 2; save it as UTF-8"):
        read_text(tmp_path / "old.txt")
    (tmp_path / "half.txt").write_bytes(codecs.BOM_UTF16_LE + b"x")
    with pytest.raises(ValueError, match=r"half\.txt is not UTF-8 text"):
        read_text(tmp_path / "half.txt")
    with pytest.raises(FileNotFoundError, match=r"no text file at .*none\.txt"):
        read_text(tmp_path / "none.txt")
