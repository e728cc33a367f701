"""Texts in tables, against what was written into them."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from perceiver_io.training.data.text import TextWindows, read_documents
from perceiver_io.training.data.text_rows import read_rows

TEXTS = ["first", "two\nlines", "", "Grüße \U0001f600"]


def write(path: Path, texts: list[str] = TEXTS) -> Path:
    lines = "".join(json.dumps({"url": "somewhere", "text": text}) + "\n" for text in texts).encode()
    if path.suffix == ".parquet":
        table = pyarrow.table({"url": ["somewhere"] * len(texts), "text": texts})
        parquet.write_table(table, path, row_group_size=3)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "c4-train.00000-of-01024.json.gz", "a.jsonl.gz", "a.parquet"])
def test_every_row_is_a_document(name: str, tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / name)) == [text.encode() for text in TEXTS if text]
    assert read_documents(tmp_path / name) == read_documents(tmp_path) == [text.encode() for text in TEXTS if text]


def test_tables_lie_beside_other_files(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl")
    (tmp_path / "a.txt").write_text("plain")
    documents = read_documents(tmp_path)
    assert [bytes(document) for document in documents] == [b"plain", *(text.encode() for text in TEXTS if text)]
    assert TextWindows(documents, 10).num_bytes == sum(map(len, documents)) + 2 * (len(documents) - 1)


def test_rows_without_a_text_are_left_out(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array(["one", None, "two"])})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == [b"one", b"two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"text": "a"}\n{"title": 1, "body": 2}\n',
            "line 2 of .* has no 'text', only 'title', 'body'; name the column .* with --text-column",
        ),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": 3}\n', "the 'text' of line 3 of .* is a int, not a string; mend it"),
        ("a.jsonl", b"[1]\n", "line 1 of .* has no 'text', but is a list"),
        ("a.jsonl", b'{"text": "a', "line 1 of .* is no JSON"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1 of .* is no JSON"),
        ("a.json.gz", b"plain", r"a\.json\.gz is no whole gzip file"),
        ("a.json.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], r"a\.json\.gz is no whole gzip file"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet"),
    ],
)
def test_damaged_tables_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / name)


def test_another_column_is_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has no 'text', only 'body'; name the column that the"):
        read_rows(tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet", "body") == [b"a"]
