"""Files with classes: a folder for each class, as ImageNet and Kinetics come in."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perceiver_io.training.data.files import data_files, is_hidden


class LabelledFile(NamedTuple):
    """A file and the number of its class."""

    path: Path
    label: int


class LabelledFiles(NamedTuple):
    """The files of a data set, and the names of its classes in the order of their numbers."""

    classes: list[str]
    training: list[LabelledFile]
    held_out: list[LabelledFile]


def find_labelled_files(directory: str | Path, suffixes: Sequence[str]) -> LabelledFiles:
    """Maps a folder to the files in it, those to train on and those held out.

    Args:
        directory: has folders `train` and `val` with a folder per class in each; or itself a folder per class, of whose
            files every tenth is then held out.
        suffixes: that the files may have, in small letters, the usual one first.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: if a folder has no such files, a class has none to train on, or `val` has a class that `train` has
            not.
    """
    directory = Path(directory)
    if (directory / "train").is_dir() and (directory / "val").is_dir():
        classes = class_names(directory / "train")
        parts = (labelled_files(directory / part, classes, suffixes) for part in ("train", "val"))
        return _checked(LabelledFiles(classes, *parts), directory)
    classes = class_names(directory)
    files = labelled_files(directory, classes, suffixes)
    if len(files) < 2:
        raise ValueError(f"{directory} has a single file, {files[0].path}; there must be one more, to be held out")
    training = [file for number, file in enumerate(files) if number % 10]
    return _checked(LabelledFiles(classes, training, files[::10]), directory)


def _checked(found: LabelledFiles, directory: Path) -> LabelledFiles:
    labels = {label for _, label in found.training}
    for label, name in enumerate(found.classes):
        if label not in labels:
            raise ValueError(f"{directory} has no files of class {name!r} to train on; add some, or remove its folder")
    return found


def class_names(directory: str | Path) -> list[str]:
    """Maps a folder to the names of the folders in it, sorted.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: if it has no folders in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}; it must have a folder of files per class")
    names = sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    if not names:
        raise ValueError(f"{directory} has no folders in it; it must have one per class, with files: CLASS/FILE")
    return names


def labelled_files(directory: str | Path, classes: Sequence[str], suffixes: Sequence[str]) -> list[LabelledFile]:
    """Maps a folder with a folder per class to its files, in sorted order.

    Args:
        directory: holds folders named as classes, and in these, however deep, the files.
        classes: names, in the order of their numbers.
        suffixes: that the files may have, in small letters, the usual one first.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: if there are no files, or files of another class, naming the first of these.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    files = []
    for name in class_names(directory):
        paths = data_files(Path(directory) / name, suffixes)
        if paths and name not in numbers:
            raise ValueError(
                f"{paths[0]} is of class {name!r}, which is none of the {len(classes)} classes "
                f"({', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}); move it, or train with this class too"
            )
        files += [LabelledFile(path, numbers[name]) for path in paths]
    if not files:
        raise ValueError(f"{directory} has no files named CLASS/NAME{suffixes[0]} or the like ({', '.join(suffixes)})")
    return files
