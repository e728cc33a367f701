"""Files in tar archives, read where they lie: data sets of a million pictures come so, and need not be unpacked."""

import tarfile
from pathlib import Path
from typing import NamedTuple

from perceiver_io.training.data.files import is_hidden

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
    """A file in an archive and the number of its class."""

    member: TarMember
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
    try:
        with tarfile.open(path, "r:") as archive:
            members = [
                TarMember(path, member.name, member.offset_data, member.size)
                for member in archive
                if member.isreg() and not any(map(is_hidden, Path(member.name).parts))
            ]
        with path.open("rb") as file:
            file.seek(-_BLOCK, 2)
            if any(file.read()):
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole, uncompressed tar archive ({error}); fetch it again, or decompress it"
        ) from error
    return members
