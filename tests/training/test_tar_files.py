"""Files in tar archives."""

import io
import tarfile
from pathlib import Path

import pytest

from perceiver_io.training.data.tar_files import tar_members
from perceiver_io.training.fingerprints import files_digest


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


CONTENTS = {"one.jpg": b"1" * 700, "folder/two.jpg": b"22", "._one.jpg": b"hidden", "empty.jpg": b""}


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    members = tar_members(write_tar(tmp_path / "all.tar", CONTENTS))
    assert [member.name for member in members] == ["one.jpg", "folder/two.jpg", "empty.jpg"]
    assert [member.read() for member in members] == [b"1" * 700, b"22", b""]
    assert str(members[1]) == f"folder/two.jpg in {tmp_path / 'all.tar'}"


def test_a_part_of_an_archive_is_none(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "all.tar", CONTENTS).read_bytes()
    # Within a file, between two files (512 for the header, 1024 for 700 bytes), within a header, nothing.
    for length in (900, 512 + 1024, 512 + 1024 + 100, 0):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.tar is not a whole, uncompressed tar archive"):
            tar_members(tmp_path / "cut.tar")
    with pytest.raises(FileNotFoundError, match=r"there is no archive .*none\.tar"):
        tar_members(tmp_path / "none.tar")


def test_an_archive_that_shrinks_is_told_of(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "all.tar", CONTENTS)
    members = tar_members(path)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(ValueError, match="is cut short"):
        members[0].read()


def test_fingerprints_know_members_by_archive_name_size_and_content(tmp_path: Path) -> None:
    digests = set()
    others = [{**CONTENTS, "one.jpg": b"1"}, {**CONTENTS, "folder/two.jpg": b"23"}]
    for name, contents in (("a", CONTENTS), ("b", CONTENTS), ("a", others[0]), ("a", others[1])):
        (tmp_path / name).mkdir(exist_ok=True)
        digests.add(files_digest(tar_members(write_tar(tmp_path / name / f"{name}.tar", contents))))
    assert len(digests) == 4
