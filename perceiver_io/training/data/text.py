"""Text as windows of bytes: from files, a folder, or texts at hand."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64
from torch import Tensor

from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.sampling import Draw

Bytes: TypeAlias = npt.NDArray[np.uint8]

TEXT_SUFFIXES = (".md", ".rst", ".text", ".txt")

# Between two documents in one window.
_SEPARATOR = b"\n\n"


class TextWindows:
    """Maps draws to windows of a fixed number of bytes from documents that are joined in their order.

    A window may hold the end of one document and the start of the next, as in the paper, which joins documents before
    it crops. An epoch has as many windows as fit side by side; each is moved by a random part of its length, so that
    every epoch cuts elsewhere.

    Args:
        documents: bytes, or arrays of them such as memory-mapped files.
        length: of a window, in bytes.
        random_positions: whether windows are moved; if not, they lie side by side, for evaluation.

    Raises:
        ValueError: if all documents together are shorter than a window.
    """

    def __init__(self, documents: Sequence[bytes | Bytes], length: int, *, random_positions: bool = True) -> None:
        arrays = [
            np.frombuffer(document, np.uint8) if isinstance(document, bytes) else document for document in documents
        ]
        separator = np.frombuffer(_SEPARATOR, np.uint8)
        self.pieces = [piece for array in arrays if len(array) for piece in (array, separator)][:-1]
        self.ends = list(accumulate(map(len, self.pieces)))
        self.length = length
        self.random_positions = random_positions
        if self.num_bytes < length:
            raise ValueError(f"the text has {self.num_bytes} bytes, fewer than a window of {length}; give more text")

    @property
    def num_bytes(self) -> int:
        """Bytes of the joined documents."""
        return self.ends[-1] if self.ends else 0

    def __len__(self) -> int:
        return self.num_bytes // self.length

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Maps a draw to "tokens" [length], ids of bytes."""
        start = draw.index * self.length
        if self.random_positions:
            shift = torch.randint(self.length, (), generator=torch.Generator().manual_seed(draw.seed))
            start = min(start + int(shift), self.num_bytes - self.length)
        return {"tokens": self._read(start)}

    def _read(self, start: int) -> Int64[Tensor, " length"]:
        """The ids of the bytes from `start` of the joined documents on."""
        number = bisect_right(self.ends, start)
        found: list[Bytes] = []
        missing = self.length
        while missing:
            piece = self.pieces[number]
            offset = max(0, start - (self.ends[number] - len(piece)))
            found.append(piece[offset : offset + missing])
            missing -= len(found[-1])
            number += 1
        window = torch.from_numpy(np.concatenate(found).astype(np.int64))
        return window + BytesTokenizer.num_special_tokens


def read_documents(path: str | Path) -> list[Bytes]:
    """Maps a text file, or a folder with text files at any depth, to the bytes of each, sorted by path.

    Files are mapped into memory, not read, so that they may be larger than it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without text files, or with empty ones alone.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a text file or a folder with text files")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_SUFFIXES and file.is_file())
        if not files:
            raise ValueError(f"{path} has no text files (endings: {', '.join(TEXT_SUFFIXES)})")
    documents: list[Bytes] = [np.memmap(file, np.uint8, mode="r") for file in files if file.stat().st_size]
    if not documents:
        raise ValueError(f"{path} holds no text: {'its files are' if path.is_dir() else 'the file is'} empty")
    return documents


def split_documents(documents: Sequence[Bytes], held_out_share: float = 0.05) -> tuple[list[Bytes], list[Bytes]]:
    """Maps documents to those to learn from and those to be evaluated on: the last part of the text.

    Args:
        held_out_share: of the bytes; the document that the border falls into is cut.
    """
    border = round(sum(map(len, documents)) * (1 - held_out_share))
    training: list[Bytes] = []
    held_out: list[Bytes] = []
    for document in documents:
        training.append(document[: max(border, 0)])
        held_out.append(document[max(border, 0) :])
        border -= len(document)
    return list(filter(len, training)), list(filter(len, held_out))
