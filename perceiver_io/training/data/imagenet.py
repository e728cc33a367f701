"""ImageNet's validation set, in the layouts in which it is found: folders of classes, the owners' tar, tar shards."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from perceiver_io.media.border import reading
from perceiver_io.optional import needs_extra
from perceiver_io.training.data.class_folders import LabelledFile, class_names, labelled_files
from perceiver_io.training.data.files import data_files
from perceiver_io.training.data.images import PICTURE_SUFFIXES
from perceiver_io.training.data.tar_files import LabelledMember, TarMember, tar_members

Labelled = list[LabelledFile] | list[LabelledMember]

_WORDNET_ID = re.compile(r"n\d{8}")
# Files of labels in a WebDataset shard, beside KEY.jpg.
LABEL_SUFFIXES = (".cls", ".json")


def find_validation_pictures(
    path: str | Path, num_classes: int, *, labels: Path | None = None, names: Sequence[str] | None = None
) -> Labelled:
    """Maps ImageNet's validation set, or another set of pictures with classes, to its pictures and their classes.

    Three layouts are understood:

    * a folder per class, in `path` itself or in its folder `val`;
    * the owners' `ILSVRC2012_img_val.tar`, or a folder with its files, with a file of labels (see `read_labels`);
    * a tar shard of WebDataset, or a folder of them: `KEY.jpg` with `KEY.cls`, which holds the number of the class, or
      with `KEY.json`, which has it as "label".

    Args:
        num_classes: that the model knows.
        labels: file of labels.
        names: of the model's classes: where folders have these names, they are these classes. Otherwise classes are
            numbered in the order of the folders' names, as WordNet's ids number ImageNet's.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: another layout, a part of an archive, a picture without a label, or a label that is no class.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or archive {path}; give ImageNet's validation set")
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if shards:
        members = [member for shard in shards for member in tar_members(shard)]
        if any(member.name.endswith(LABEL_SUFFIXES) for member in members):
            return pictures_of_shards(members, num_classes)
        pictures = [member for member in members if member.name.lower().endswith(PICTURE_SUFFIXES)]
        return _labelled(LabelledMember, pictures, lambda member: member.name, path, labels, num_classes)
    folder = path / "val" if (path / "val").is_dir() else path
    if labels is not None:
        files = data_files(folder, PICTURE_SUFFIXES)
        return _labelled(
            LabelledFile, files, lambda file: file.relative_to(folder).as_posix(), folder, labels, num_classes
        )
    found = class_names(folder)
    if names is not None and set(found) <= set(names):
        return labelled_files(folder, names, PICTURE_SUFFIXES)
    if len(found) != num_classes:
        raise ValueError(
            f"{folder} has {len(found)} folders of classes ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}) "
            f"and the model knows {num_classes} classes; give as many, or --labels"
        )
    return labelled_files(folder, found, PICTURE_SUFFIXES)


def _labelled(
    make: Callable[..., object],
    pictures: Sequence[object],
    name_of: Callable[..., str],
    source: Path,
    labels: Path | None,
    num_classes: int,
) -> Labelled:
    """Joins pictures and the labels of a file."""
    if not pictures:
        raise ValueError(f"{source} has no pictures ({', '.join(PICTURE_SUFFIXES)})")
    if labels is None:
        raise ValueError(
            f"{source} has pictures without their classes; give the file of these with --labels, such as the "
            "development kit's ILSVRC2012_validation_ground_truth.txt"
        )
    pictures = sorted(pictures, key=lambda picture: PurePosixPath(name_of(picture)).name)
    numbers = read_labels(labels, [name_of(picture) for picture in pictures], num_classes)
    return [make(picture, number) for picture, number in zip(pictures, numbers, strict=True)]  # type: ignore[return-value]


def pictures_of_shards(members: Iterable[TarMember], num_classes: int | None = None) -> list[LabelledMember]:
    """Maps the files of WebDataset's shards to the pictures among them and their classes.

    Args:
        members: `KEY.jpg`, each with `KEY.cls`, which holds the number of the class, or `KEY.json`, which has it as
            "label".
        num_classes: that there may be; None for any number.

    Raises:
        ValueError: a picture or a label alone, or a label that is no class.
    """
    samples: dict[tuple[Path, str], dict[str, TarMember]] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        key, _, suffix = name.partition(".")
        samples.setdefault((member.archive, f"{folder}/{key}"), {})[f".{suffix.lower()}"] = member
    labelled = []
    for parts in samples.values():
        pictures = [member for suffix, member in parts.items() if suffix.endswith(PICTURE_SUFFIXES)]
        labels = [member for suffix, member in parts.items() if suffix.endswith(LABEL_SUFFIXES)]
        if not pictures or not labels:
            lone = next(iter(parts.values()))
            raise ValueError(
                f"{lone} has no {'picture' if not pictures else 'label'} beside it; a shard holds KEY.jpg and KEY.cls"
            )
        labelled.append(LabelledMember(pictures[0], _label_of(labels[0], num_classes)))
    return labelled


def _label_of(member: TarMember, num_classes: int | None) -> int:
    try:
        value = json.loads(member.read())
        value = value["label"] if isinstance(value, dict) else value
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{value} is no whole number")
        label = int(value)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{member} does not hold the number of a class ({error!r})") from error
    return _checked(label, num_classes, str(member))


def read_labels(path: Path, pictures: Sequence[str], num_classes: int) -> list[int]:
    """Reads the classes of pictures from a file, in any of the forms that ImageNet's are kept in.

    * the development kit's `ILSVRC2012_validation_ground_truth.txt`: a number from 1 a line, in the order of the
      pictures' names, which the `meta.mat` beside it maps to WordNet's ids;
    * a WordNet id a line, in the order of the pictures' names;
    * `PICTURE CLASS` a line, with a number from 0 or a WordNet id;
    * Kaggle's `LOC_val_solution.csv`.

    WordNet's ids are numbered in their order, as the released models number ImageNet's classes.

    Args:
        pictures: their names, with the folders that they lie in, in the order of the names alone. A file of labels may
            name them with folders or without, and with their ending or without, where that can mean but one.
        num_classes: that the model knows.

    Raises:
        FileNotFoundError: no such file, or no `meta.mat` beside the development kit's numbers.
        ValueError: another form, another number of pictures or classes, or a label that is no class.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of labels {path}")
    with reading(path, "a text file of labels"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if lines and lines[0].replace(" ", "").lower() == "imageid,predictionstring":
        rows = [row for row in csv.reader(lines[1:]) if len(row) > 1 and row[1].split()]
        return _numbers(_by_name([(row[0], row[1].split()[0]) for row in rows], pictures, path), num_classes, path)
    words = [line.split() for line in lines]
    if words and all(len(line) == 2 for line in words):
        return _numbers(_by_name([(name, label) for name, label in words], pictures, path), num_classes, path)
    if not words or any(len(line) != 1 for line in words):
        raise ValueError(
            f"{path} is not a file of labels: a line holds a class, or the name of a picture and its class"
        )
    if len(lines) != len(pictures):
        raise ValueError(f"{path} has {len(lines)} labels for {len(pictures)} pictures; the two do not belong together")
    _check_names(pictures, path)
    if all(map(_WORDNET_ID.fullmatch, lines)):
        return _numbers(lines, num_classes, path)
    ids = _ids_of_the_development_kit(path)
    for line in lines:
        if line not in ids:
            raise ValueError(f"{path} has the label {line[:100]!r}, which is no class of the meta.mat beside it")
    # Those of all classes, not of these pictures alone: the order is that of all.
    order = {name: number for number, name in enumerate(sorted(ids.values()))}
    return [_checked(order[ids[line]], num_classes, str(path)) for line in lines]


def _by_name(labels: Sequence[tuple[str, str]], pictures: Sequence[str], path: Path) -> list[str]:
    """Finds each picture's label: under its name with folders; or, where one of the two has none, by the name alone."""
    whole: dict[str, set[str]] = {}
    without_folder: dict[str, set[str]] = {}
    alone: dict[str, set[str]] = {}
    for name, label in labels:
        stem = PurePosixPath(name).stem
        whole.setdefault(_without_ending(name), set()).add(label)
        alone.setdefault(stem, set()).add(label)
        if stem == _without_ending(name):
            without_folder.setdefault(stem, set()).add(label)
    numbers = Counter(PurePosixPath(picture).stem for picture in pictures)
    found = []
    for picture in pictures:
        stem = PurePosixPath(picture).stem
        others = alone if stem == _without_ending(picture) else without_folder
        own = whole.get(_without_ending(picture)) or others.get(stem, set())
        if not own:
            raise ValueError(f"{path} has no label for the picture {picture}")
        if len(own) > 1 or (numbers[stem] > 1 and _without_ending(picture) not in whole):
            raise ValueError(
                f"{path} does not say which label is that of {picture}, since others have its name or it has several; "
                "give names with their folders, each once"
            )
        found.append(next(iter(own)))
    return found


def _without_ending(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name


def _check_names(pictures: Sequence[str], path: Path) -> None:
    """Checks that names alone put pictures into an order."""
    for name, number in Counter(PurePosixPath(picture).name for picture in pictures).items():
        if number > 1:
            raise ValueError(
                f"{path} has labels in the order of the pictures' names, of which {number} are called {name}; give "
                "lines PICTURE CLASS with their folders"
            )


def _numbers(labels: Sequence[str], num_classes: int, path: Path) -> list[int]:
    """Maps numbers from 0, or WordNet's ids of all classes, to numbers of classes."""
    if all(map(_WORDNET_ID.fullmatch, labels)):
        order = {name: number for number, name in enumerate(sorted(set(labels)))}
        if len(order) != num_classes:
            raise ValueError(
                f"{path} names {len(order)} of the {num_classes} classes that the model knows, so that they cannot be "
                "numbered; give numbers from 0"
            )
        return [order[label] for label in labels]
    for label in labels:
        if not (label.isascii() and label.isdigit()):
            raise ValueError(f"{path} has the label {label[:100]!r}; a label is a number from 0, or a WordNet id")
    return [_checked(int(label), num_classes, str(path)) for label in labels]


def _checked(label: int, num_classes: int | None, source: str) -> int:
    if num_classes is None:
        if label < 0:
            raise ValueError(f"{source} has the label {label}; a label is the number of a class, from 0")
        return label
    if not 0 <= label < num_classes:
        raise ValueError(f"{source} has the label {label}; the model knows the classes 0…{num_classes - 1}")
    return label


def _ids_of_the_development_kit(path: Path) -> dict[str, str]:
    """Maps the development kit's numbers of the classes, as text, to WordNet's ids."""
    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise FileNotFoundError(
            f"{path} has numbers of the development kit's own, which the file {meta} explains and which is not there; "
            "copy it from the kit's folder data"
        )
    with needs_extra("reading the development kit's meta.mat", "evaluate"):
        from scipy.io import loadmat
    with reading(meta, "the development kit's table of classes"):
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        columns = (synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        # What has children are groups that the classes form.
        return {str(number): str(name) for number, name, children in zip(*columns, strict=True) if not children}
