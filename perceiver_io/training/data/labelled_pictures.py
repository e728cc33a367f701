"""Pictures with classes to train on, in the layouts in which they come: folders, archives, and data sets of a hub."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from perceiver_io.training.data.class_folders import LabelledFile, find_labelled_files
from perceiver_io.training.data.hub_datasets import is_hub_dataset, open_hub_dataset
from perceiver_io.training.data.imagenet import LABEL_SUFFIXES, find_validation_pictures, pictures_of_shards
from perceiver_io.training.data.images import PICTURE_SUFFIXES
from perceiver_io.training.data.row_pictures import RowPicture
from perceiver_io.training.data.tar_files import LabelledMember, TarMember, nested_members, tar_members

LabelledPicture = LabelledFile | LabelledMember

# What an archive's name says that it is for: imagenet1k-train-0007.tar, ILSVRC2012_img_val.tar.
_PART = re.compile(r"(?:^|[-_.])(train|val|validation|test)(?:[-_.]|$)")


class LabelledPictures(NamedTuple):
    """The pictures of a data set, and the names of its classes in the order of their numbers."""

    classes: list[str]
    training: Sequence[LabelledPicture]
    held_out: Sequence[LabelledPicture]


def find_labelled_pictures(source: Path, *, labels: Path | None = None) -> LabelledPictures:
    """Maps a data set of pictures to those to train on and those held out: every tenth where the data do not say.

    * Folders of classes: see `find_labelled_files`.
    * Tar archives: one, a folder of them, or folders `train` and `val` of them. They are shards of WebDataset (see
      `pictures_of_shards`), archives that are named after the class of their pictures, or archives of such as the
      owners' `ILSVRC2012_img_train.tar`. Those whose name says so, like `ILSVRC2012_img_val.tar`, are held out.
    * A data set of Hugging Face (see `open_hub_dataset`) with the columns "image" and "label"; of a saved one of
      several parts, "train" and "validation" or "test".

    Nothing is unpacked, and any picture can be read at any time.

    Args:
        source: of the data.
        labels: file with the classes of the pictures of `ILSVRC2012_img_val.tar`; see `read_labels`.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: another layout, a part of an archive, a picture without a class, or a single class.
        ImportError: for a data set of Hugging Face, without the extra `datasets`.
    """
    parts = None if is_hub_dataset(source) else _archives(source)
    if parts is not None:
        found = _of_archives(source, *parts, labels)
    elif is_hub_dataset(source):
        found = _of_a_hub(source)
    else:
        found = LabelledPictures(*find_labelled_files(source, PICTURE_SUFFIXES))
    if len(found.classes) < 2:
        what = "a folder" if parts is None and not is_hub_dataset(source) else "pictures"
        raise ValueError(f"{source} has {what} of one class only, {found.classes[0]!r}; there must be two or more")
    return found


def _archives(source: Path) -> tuple[list[Path], list[Path]] | None:
    """The archives to train on, and those held out; None for data in another form."""
    if source.is_file():
        return [source], []
    folders = [source / part for part in ("train", "val") if any((source / part).glob("*.tar"))]
    if folders:
        if len(folders) == 1:
            raise ValueError(f"{folders[0]} has archives and {source} not the other of train and val; give both or one")
        return sorted(folders[0].glob("*.tar")), sorted(folders[1].glob("*.tar"))
    archives = sorted(source.glob("*.tar"))
    named = {path: found[1] if (found := _PART.search(path.name)) else "train" for path in archives}
    training = [path for path, part in named.items() if part == "train"]
    return (training, [path for path, part in named.items() if part in ("val", "validation")]) if archives else None


def _of_archives(source: Path, training: list[Path], held_out: list[Path], labels: Path | None) -> LabelledPictures:
    if not training:
        found_there = (
            f"archives to hold out alone, such as {held_out[0].name}" if held_out else "archives to test alone"
        )
        raise ValueError(f"{source} has {found_there}; add some to train on")
    members = _members(training)
    if has_labels := any(member.name.endswith(LABEL_SUFFIXES) for member in members):
        found = pictures_of_shards(members)
        classes = _numbered(found)
    else:
        by_class = _by_class(source, members)
        classes = sorted(by_class)
        found = _labelled(by_class, classes)
    if not held_out:
        rest = [member for number, member in enumerate(found) if number % 10]
        if not rest:
            raise ValueError(
                f"{source} has a single picture, {found[0].member}; there must be one more, to be held out"
            )
        return LabelledPictures(classes, rest, found[::10])
    if not has_labels and labels is None:
        by_class = _by_class(source, _members(held_out))
        if by_class.keys() <= set(classes):
            return LabelledPictures(classes, found, _labelled(by_class, classes))
    others: list[LabelledPicture] = []
    for path in held_out:
        others += find_validation_pictures(path, len(classes), labels=labels)
    return LabelledPictures(classes, found, others)


def _members(archives: Sequence[Path]) -> list[TarMember]:
    return [member for path in archives for member in tar_members(path)]


def _numbered(pictures: Sequence[LabelledMember]) -> list[str]:
    """The names of classes that have none but their numbers.

    Raises:
        ValueError: for a number beyond the number of pictures, which is no number of a class.
    """
    last = max(pictures, key=lambda picture: picture.label)
    if last.label >= len(pictures):
        raise ValueError(f"{last.member} has the label {last.label}, more than there are pictures ({len(pictures)})")
    return [str(number) for number in range(1 + last.label)]


def _labelled(by_class: Mapping[str, Sequence[TarMember]], classes: Sequence[str]) -> list[LabelledMember]:
    return [LabelledMember(member, number) for number, name in enumerate(classes) for member in by_class.get(name, ())]


def _by_class(source: Path, members: Sequence[TarMember]) -> dict[str, list[TarMember]]:
    """Pictures by the name of their archive, which lies on the disk or in another one."""
    inner = [member for member in members if member.name.lower().endswith(".tar")]
    named = [(PurePosixPath(member.name).stem, nested_members(member)) for member in inner] or [
        (member.archive.stem, [member]) for member in members
    ]
    found: dict[str, list[TarMember]] = {}
    for name, own in named:
        pictures = [member for member in own if member.name.lower().endswith(PICTURE_SUFFIXES)]
        if pictures:
            found.setdefault(name, []).extend(pictures)
    if not found:
        raise ValueError(f"{source} has no pictures ({', '.join(PICTURE_SUFFIXES)}) in its archives")
    return found


def _of_a_hub(source: Path) -> LabelledPictures:
    training, held_out = source, None
    if (source / "dataset_dict.json").is_file():
        training = source / "train"
        held_out = next((source / part for part in ("validation", "test") if (source / part).is_dir()), None)
    names, found = _rows(training)
    classes = names or _numbered(found)
    if held_out is None:
        return LabelledPictures(classes, [row for number, row in enumerate(found) if number % 10], found[::10])
    own_names, others = _rows(held_out)
    numbers: Sequence[int] = range(len(classes))
    if names and own_names:  # which may number the classes otherwise
        for name in own_names:
            if name not in classes:
                raise ValueError(f"{held_out} has classes that {training} has not, such as {name!r}")
        numbers = [classes.index(name) for name in own_names]
    for picture, label in others:
        if label >= len(numbers):
            raise ValueError(f"{picture} has the label {label}; the classes of {training} are 0…{len(classes) - 1}")
    return LabelledPictures(classes, found, [LabelledMember(picture, numbers[label]) for picture, label in others])


class _Rows(NamedTuple):
    names: list[str] | None
    pictures: list[LabelledMember]


def _rows(source: Path) -> _Rows:
    rows = open_hub_dataset(source, "image", "label")
    pictures = RowPicture.of_all(rows, "image", str(source))
    labels = rows["label"]
    names = getattr(rows.features["label"], "names", None)
    for number, label in enumerate(labels):
        if not isinstance(label, int) or label < 0 or (names is not None and label >= len(names)):
            raise ValueError(
                f"row {number} of {source} has the label {label!r}; a label is the number of a class, from 0"
            )
    if not pictures:
        raise ValueError(f"{source} has no rows; nothing can be learned from it")
    labelled = [LabelledMember(picture, label) for picture, label in zip(pictures, labels, strict=True)]
    return _Rows(None if names is None else list(names), labelled)
