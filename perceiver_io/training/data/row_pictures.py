"""Pictures in the rows of a data set of Hugging Face, whose bytes are read when they are asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import datasets


class RowPicture(NamedTuple):
    """The picture file in a row.

    Attributes:
        rows: of the data set, with pictures that are not decoded.
        column: of the pictures.
        number: of the row.
        source: of the data set, for errors.
    """

    rows: "datasets.Dataset"
    column: str
    number: int
    source: str

    @classmethod
    def of_all(cls, rows: "datasets.Dataset", column: str, source: str) -> "list[RowPicture]":
        """Maps a data set to its pictures.

        Raises:
            ValueError: if the column holds something else.
        """
        import datasets

        if not isinstance(rows.features[column], datasets.Image):
            raise ValueError(f"the column {column!r} of {source} holds {rows.features[column]} and not pictures")
        undecoded = rows.cast_column(column, datasets.Image(decode=False))
        return [cls(undecoded, column, number, source) for number in range(len(rows))]

    def __str__(self) -> str:
        return f"row {self.number} of {self.source}"

    def read(self) -> bytes:
        """Reads the file's bytes, from the row or from the file that it names.

        Raises:
            OSError: if that file cannot be read.
        """
        file = self.rows[self.number][self.column] or {}
        content: bytes | None = file.get("bytes")
        return Path(file["path"]).read_bytes() if content is None and file.get("path") else content or b""
