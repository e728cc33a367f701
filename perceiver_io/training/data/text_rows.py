"""Texts in the rows of tables: lines of JSON and Parquet files, as C4 and Wikipedia come in."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from perceiver_io.media.border import reading
from perceiver_io.optional import needs_extra

ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".json.gz", ".parquet")
# The column that C4 and Wikipedia have their texts in.
TEXT_COLUMN = "text"

COLUMN_WAY_OUT = "name the column that the texts are in with --text-column"


def has_rows(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(ROW_SUFFIXES)


def read_rows(path: Path, column: str = TEXT_COLUMN) -> list[bytes]:
    """Maps a file to the texts of its rows, each a document in UTF-8; they are kept in memory, and empty ones left out.

    Raises:
        ValueError: a damaged file, or one without such a column of texts, naming the row or the columns.
        ImportError: pyarrow is missing; it comes with the `parquet` extra, and Parquet files need it.
    """
    rows = (_parquet if path.name.lower().endswith(".parquet") else _json_lines)(path, column)
    return [text.encode(errors="surrogatepass") for text in rows if text]


def _json_lines(path: Path, column: str) -> Iterator[str]:
    open_file = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with open_file(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _text(line, column, f"line {number} of {path}")
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch it again") from error


def _text(line: bytes, column: str, name: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON ({error}); mend it") from error
    if not isinstance(row, dict) or column not in row:
        keys = f"only {', '.join(map(repr, row))}" if isinstance(row, dict) else f"but is a {type(row).__name__}"
        raise ValueError(f"{name} has no {column!r}, {keys}; {COLUMN_WAY_OUT}")
    return _checked(row[column], column, name)


def _parquet(path: Path, column: str) -> Iterator[str]:
    with needs_extra("reading Parquet files", "parquet"):
        from pyarrow import parquet
    with reading(path, "a Parquet file"):
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
    if column not in names:
        raise ValueError(f"{path} has no {column!r}, only {', '.join(map(repr, names))}; {COLUMN_WAY_OUT}")
    for group in range(table.num_row_groups):
        with reading(path, "a Parquet file"):
            texts = table.read_row_group(group, columns=[column]).column(column).to_pylist()
        for text in texts:
            yield _checked("" if text is None else text, column, f"a row of {path}")


def _checked(text: object, column: str, name: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"the {column!r} of {name} is a {type(text).__name__}, not a string; mend it")
    return text
