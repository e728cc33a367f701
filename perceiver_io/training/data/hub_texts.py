"""Texts in a column of a data set of Hugging Face's `datasets`, which stay in its files until they are asked for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from perceiver_io.media.border import reading
from perceiver_io.training.data.hub_datasets import open_hub_dataset
from perceiver_io.training.data.text_rows import COLUMN_WAY_OUT

if TYPE_CHECKING:
    import datasets

# Between two documents in one window.
SEPARATOR = b"\n\n"

# Rows whose lengths are looked up at once.
_ROWS = 100_000


class _Column:
    """A column of texts, and where each ends if they lie end to end with separators between them."""

    def __init__(self, source: str | Path, name: str) -> None:
        dataset = open_hub_dataset(source, name, way_out=COLUMN_WAY_OUT)
        kind = getattr(dataset.features[name], "dtype", type(dataset.features[name]).__name__)
        if kind not in ("string", "large_string"):
            raise ValueError(f"the column {name!r} of {source} holds {kind}, not texts; {COLUMN_WAY_OUT}")
        self.source, self.name = source, name
        self.rows: datasets.Dataset = dataset.select_columns([name]).with_format("arrow")
        with reading(source, "a whole data set"):
            lengths = self._lengths()
        self.numbers = np.flatnonzero(lengths)  # of the rows that have a text
        self.ends = np.cumsum(lengths[self.numbers] + len(SEPARATOR))

    def _lengths(self) -> npt.NDArray[np.int64]:
        from pyarrow import compute

        parts = [
            compute.fill_null(compute.binary_length(self.rows[start : start + _ROWS][self.name]), 0).to_numpy()
            for start in range(0, len(self.rows), _ROWS)
        ]
        return np.concatenate(parts, dtype=np.int64) if parts else np.zeros(0, np.int64)

    def read(self, start: int, stop: int) -> bytes:
        first, last = np.searchsorted(self.ends, (start, stop - 1), side="right")
        with reading(self.source, "a whole data set"):
            texts = self.rows[int(self.numbers[first]) : int(self.numbers[last]) + 1][self.name].to_pylist()
        joined = SEPARATOR.join(text.encode() for text in texts if text)
        begin = int(self.ends[first - 1]) if first else 0
        return (joined + SEPARATOR)[start - begin : stop - begin]


@dataclass(frozen=True)
class HubText:
    """All texts of a data set joined to one, or a part of it, which is read anew whenever it is asked for.

    Args:
        column: that the texts are in.
        start: number of its first byte that counts.
        stop: number of the byte after the last that counts.
    """

    column: _Column
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "HubText":
        start, stop, _ = part.indices(len(self))
        return replace(self, start=self.start + start, stop=self.start + max(start, stop))

    def __bytes__(self) -> bytes:
        """Reads it.

        Raises:
            ValueError: if the data set is damaged.
        """
        return self.column.read(self.start, self.stop) if len(self) else b""


def read_hub_text(source: str | Path, column: str) -> HubText:
    """Maps a data set (see `open_hub_dataset`) to its texts joined to one, without those that are empty.

    Raises:
        ImportError: `datasets` is missing; it comes with the `datasets` extra.
        ValueError: if it cannot be opened, or lacks a column of texts of this name.
    """
    texts = _Column(source, column)
    return HubText(texts, 0, max(0, int(texts.ends[-1]) - len(SEPARATOR)) if len(texts.ends) else 0)


def read_hub_texts(source: str | Path, column: str) -> list[HubText]:
    """Maps a data set to its texts, each by itself; see `read_hub_text`."""
    whole = read_hub_text(source, column)
    ends = whole.column.ends.tolist()
    return [HubText(whole.column, start, end - len(SEPARATOR)) for start, end in zip([0, *ends], ends, strict=False)]
