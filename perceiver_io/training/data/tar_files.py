"""Files in tar archives, read where they lie: data sets of a million pictures come so, and need not be unpacked."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from perceiver_io.training.data.files import is_hidden
from perceiver_io.training.data.row_pictures import RowPicture

# An archive ends with blocks of zeros; what was cut short does not.
_BLOCK = 512


class TarMember(NamedTuple):
    """A file in an archive, whose bytes are read anew whenever they are asked for.

    Attributes:
        archive: path of the tar file.
        name: of the file within it, with its folders.
        start: number of its first byte in the archive.
        size: in bytes.
    """

    archive: Path
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"

    def read(self) -> bytes:
        """Reads it.

        Raises:
            OSError: if the archive cannot be read.
            ValueError: if the archive has become shorter.
        """
        with self.archive.open("rb", buffering=0) as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) < self.size:
            raise ValueError(f"{self} is cut short: the archive has changed; leave it as it is while it is read")
        return content


class LabelledMember(NamedTuple):
    """A file in an archive, or in a row of a data set, and the number of its class."""

    member: TarMember | RowPicture
    label: int


def tar_members(path: str | Path) -> list[TarMember]:
    """Maps an uncompressed tar archive to the files in it, in its order, without those that are hidden.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else than such an archive, or a part of one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no archive {path}")
    with _whole(path), path.open("rb") as file:
        return _members(path, file, "", path.stat().st_size)


def nested_members(member: TarMember) -> list[TarMember]:
    """Maps an archive within an archive to the files in it, which are read where they lie, too.

    Raises:
        ValueError: something else than an uncompressed archive, or a part of one.
    """
    with _whole(member), member.archive.open("rb") as file:
        file.seek(member.start)
        return _members(member.archive, file, f"{member.name}/", member.start + member.size)


def _members(path: Path, file: BufferedReader, prefix: str, end: int) -> list[TarMember]:
    """The files of an archive that goes from where the file is to `end`."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        members = [
            TarMember(path, prefix + member.name, member.offset_data, member.size)
            for member in archive
            if member.isreg() and not any(map(is_hidden, Path(member.name).parts))
        ]
    file.seek(end - _BLOCK)
    if any(file.read(_BLOCK)) or any(member.start + member.size > end for member in members):
        raise tarfile.ReadError("its end is missing")
    return members


@contextmanager
def _whole(archive: Path | TarMember) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{archive} is not a whole, uncompressed tar archive ({error}); fetch it again, or decompress it"
        ) from error
