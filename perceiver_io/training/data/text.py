"""Text as windows of bytes: from files, a folder, or texts at hand."""

import codecs
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64
from torch import Tensor

from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.data.files import data_files
from perceiver_io.training.data.hub_datasets import is_hub_dataset
from perceiver_io.training.data.hub_texts import SEPARATOR, HubText, read_hub_text, read_hub_texts
from perceiver_io.training.data.text_rows import ROW_SUFFIXES, TEXT_COLUMN, has_rows, read_rows
from perceiver_io.training.fingerprints import content_digest
from perceiver_io.training.sampling import Draw

TEXT_SUFFIXES = (".md", ".rst", ".text", ".txt")


@dataclass(frozen=True)
class TextFile:
    """A text file, or a part of one, which is read anew whenever it is asked for.

    So a folder may have more files than a process may open, and files may be larger than memory. They are not mapped
    into memory: a process that reads a mapped file which is cut short meanwhile is killed.

    Args:
        path: of the file.
        start: number of its first byte that counts.
        stop: number of the byte after the last that counts.
    """

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "TextFile":
        start, stop, _ = part.indices(len(self))
        return replace(self, start=self.start + start, stop=self.start + max(start, stop))

    def __bytes__(self) -> bytes:
        """Reads it.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it has become shorter, naming the file.
        """
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            content = file.read(len(self))
        if len(content) < len(self):
            raise ValueError(
                f"{self.path} has become shorter: bytes up to {self.stop} are missing; leave the text as it is while "
                "it is learned from"
            )
        return content


Document: TypeAlias = bytes | npt.NDArray[np.uint8] | TextFile | HubText


class TextWindows:
    """Maps draws to windows of a fixed number of bytes from documents that are joined in their order.

    A window may hold the end of one document and the start of the next, as in the paper, which joins documents before
    it crops. An epoch has as many windows as fit side by side; each is moved by a random part of its length, so that
    every epoch cuts elsewhere.

    Args:
        documents: bytes, arrays of them, or files.
        length: of a window, in bytes.
        random_positions: whether windows are moved; if not, they lie side by side, for evaluation.

    Raises:
        ValueError: if all documents together are shorter than a window.
    """

    def __init__(self, documents: Sequence[Document], length: int, *, random_positions: bool = True) -> None:
        self.pieces = [piece for document in documents if len(document) for piece in (document, SEPARATOR)][:-1]
        self.ends = list(accumulate(map(len, self.pieces)))
        self.length = length
        self.random_positions = random_positions
        if self.num_bytes < length:
            raise ValueError(f"the text has {self.num_bytes} bytes, fewer than a window of {length}; give more text")

    def fingerprint(self) -> str:
        """Tells this text from others: by a digest of it, or of much of it if it is long, and how it is cut."""
        pieces = self.pieces
        digest = content_digest(list(map(len, pieces)), lambda number, start, end: bytes(pieces[number][start:end]))
        return f"{digest} {self.length} {self.random_positions}"

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
        window = np.frombuffer(self._bytes(start, self.length), np.uint8).astype(np.int64)
        return torch.from_numpy(window) + BytesTokenizer.num_special_tokens

    def _bytes(self, start: int, length: int) -> bytes:
        number = bisect_right(self.ends, start)
        found = b""
        while len(found) < length:
            piece = self.pieces[number]
            offset = max(0, start - (self.ends[number] - len(piece)))
            found += bytes(piece[offset : offset + length - len(found)])
            number += 1
        return found


def read_documents(path: str | Path, column: str = TEXT_COLUMN, *, rows_apart: bool = False) -> list[Document]:
    """Maps a text file, or a folder with text files at any depth (see `data_files`), to these, sorted by path.

    Of tables (see `read_rows`) every row is a document. A data set of Hugging Face's (see `open_hub_dataset`) is one
    document, in which its texts are joined as `TextWindows` joins documents: a list of millions would not be small.

    A byte order mark is no part of the text. Text in UTF-16 or UTF-32, which have one, is read and becomes UTF-8; other
    files are left where they are until a part is asked for.

    Args:
        path: of a file or folder, or the name of a data set, `hf:NAME`.
        column: that the texts of tables are in.
        rows_apart: whether each text of a data set is a document nevertheless.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without text files, or with empty ones alone, or a file that is not what its mark says.
    """
    if is_hub_dataset(path):
        texts = read_hub_texts(path, column) if rows_apart else [read_hub_text(path, column)]
        if not any(map(len, texts)):
            raise ValueError(f"{path} holds no text: its column {column!r} is empty")
        return list(texts)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a text file or a folder with text files")
    files = [path]
    if path.is_dir():
        files = data_files(path, (*TEXT_SUFFIXES, *ROW_SUFFIXES))
        if not files:
            raise ValueError(f"{path} has no text files (endings: {', '.join((*TEXT_SUFFIXES, *ROW_SUFFIXES))})")
    documents: list[Document] = []
    for file in files:
        documents += read_rows(file, column) if has_rows(file) else filter(len, [_document(file)])
    if not documents:
        raise ValueError(f"{path} holds no text: {'its files are' if path.is_dir() else 'the file is'} empty")
    return documents


# UTF-32's mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _document(path: Path) -> Document:
    with path.open("rb") as file:
        start = file.read(4)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            try:
                return path.read_bytes().decode(encoding).encode()
            except UnicodeError as error:
                raise ValueError(f"{path} begins as {encoding.upper()} does, but is not ({error}); mend it") from error
    return TextFile(path, len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0, path.stat().st_size)


def split_documents(
    documents: Sequence[Document], held_out_share: float = 0.05
) -> tuple[list[Document], list[Document]]:
    """Maps documents to those to learn from and those to be evaluated on: the last part of the text.

    Args:
        held_out_share: of the bytes; the document that the border falls into is cut.
    """
    border = round(sum(map(len, documents)) * (1 - held_out_share))
    training: list[Document] = []
    held_out: list[Document] = []
    for document in documents:
        training.append(document[: max(border, 0)])
        held_out.append(document[max(border, 0) :])
        border -= len(document)
    return list(filter(len, training)), list(filter(len, held_out))
