"""Pictures to train on in archives and rows: found with their classes, read at random, and refused in one sentence."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from perceiver_io.media import image_from_bytes
from perceiver_io.training import Draw
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.data.labelled_pictures import LabelledPictures, find_labelled_pictures
from perceiver_io.training.data.training_pictures import TrainingPictures
from tests.training.test_tar_files import write_tar

IDS = ("n00000010", "n00000030", "n00000020")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12 + shade % 3, 11), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def tar_bytes(folder: Path, contents: dict[str, bytes]) -> bytes:
    return write_tar(folder / "temporary", contents).read_bytes()


def shard(path: Path, shades: dict[int, int]) -> Path:
    """A shard with pictures of some shades, each with its class."""
    path.parent.mkdir(exist_ok=True, parents=True)
    contents: dict[str, bytes] = {}
    for shade, label in shades.items():
        contents |= {f"{shade:03}.png": picture(shade), f"{shade:03}.cls": str(label).encode()}
    return write_tar(path, contents)


def shades(pictures: object) -> list[tuple[int, int]]:
    """What is read of pictures, with their labels."""
    return [(int(image_from_bytes(source.read(), "it")[0, 0, 0]), label) for source, label in pictures]  # type: ignore[attr-defined]


def write_parts(folder: Path) -> Path:
    shard(folder / "train" / "000.tar", {10: 0, 20: 2})
    shard(folder / "train" / "001.tar", {30: 1})
    shard(folder / "val" / "000.tar", {40: 1, 50: 2})
    return folder


def write_names(folder: Path) -> Path:
    shard(folder / "imagenet1k-train-0000.tar", {10: 0, 20: 2, 30: 1})
    shard(folder / "imagenet1k-validation-00.tar", {40: 1, 50: 2})
    shard(folder / "imagenet1k-test-00.tar", {60: 1})
    return folder


def write_owners(folder: Path) -> Path:
    inner = {
        name: tar_bytes(folder, {f"{name}_1.JPEG": picture(10 * (1 + number))})
        for number, name in enumerate((IDS[0], IDS[2], IDS[1]))
    }
    write_tar(folder / "ILSVRC2012_img_train.tar", {f"{name}.tar": content for name, content in inner.items()})
    names = ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")
    write_tar(folder / "ILSVRC2012_img_val.tar", {names[0]: picture(40), names[1]: picture(50)})
    (folder / "labels.txt").write_text(f"{names[0]} 1\n{names[1]} 2\n")
    return folder


def write_saved(folder: Path) -> Path:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abc"))})
    parts = {"train": {10: 0, 20: 2, 30: 1}, "validation": {40: 1, 50: 2}}
    made = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": picture(shade)} for shade in part], "label": list(part.values())}, features=features
        )
        for name, part in parts.items()
    }
    datasets.DatasetDict(made).save_to_disk(folder / "made")
    return folder / "made"


@pytest.mark.parametrize(
    ("write", "classes"),
    [(write_parts, "012"), (write_names, "012"), (write_owners, sorted(IDS)), (write_saved, "abc")],
)
def test_layouts(tmp_path: Path, write: Callable[[Path], Path], classes: str | list[str]) -> None:
    labels = tmp_path / "labels.txt"
    source = write(tmp_path)
    found = find_labelled_pictures(source, labels=labels if labels.exists() else None)
    assert found.classes == list(classes)
    training = [(10, 0), (20, 1), (30, 2)] if write is write_owners else [(10, 0), (20, 2), (30, 1)]
    assert shades(found.training) == training
    assert shades(found.held_out) == [(40, 1), (50, 2)]
    # In any order, by any process; and known by their content.
    dataset = TrainingPictures(found.training, TrainingAugmentation(size=(4, 5)))
    assert [int(dataset[Draw(index, 3)]["label"]) for index in (2, 0, 1)] == [training[n][1] for n in (2, 0, 1)]
    assert dataset.fingerprint() == TrainingPictures(found.training, TrainingAugmentation(size=(4, 5))).fingerprint()
    others = ImageFolder(found.held_out, EvaluationCrop(size=(4, 5)))
    assert others[Draw(1, 0)]["image"].shape == (3, 4, 5)
    assert others.fingerprint()


def test_held_out_pictures_in_archives_of_classes(tmp_path: Path) -> None:
    for part, shade in (("train", 10), ("val", 40)):
        (tmp_path / part).mkdir()
        for number, name in enumerate(("cat", "dog", "eel")[: 3 if part == "train" else 2]):
            write_tar(tmp_path / part / f"{name}.tar", {"1.png": picture(shade + number)})
    found = find_labelled_pictures(tmp_path)
    assert shades(found.training) == [(10, 0), (11, 1), (12, 2)]
    assert shades(found.held_out) == [(40, 0), (41, 1)]


def test_held_out_rows_may_number_classes_otherwise(tmp_path: Path) -> None:
    def rows(names: str) -> datasets.Dataset:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
        return datasets.Dataset.from_dict(
            {"image": [{"bytes": picture(10)}, {"bytes": picture(20)}], "label": [0, 1]}, features=features
        )

    datasets.DatasetDict({"train": rows("abc"), "validation": rows("ca")}).save_to_disk(tmp_path)
    assert [label for _, label in find_labelled_pictures(tmp_path).held_out] == [2, 0]


def test_held_out_rows_may_be_few(tmp_path: Path) -> None:
    def rows(*labels: int) -> datasets.Dataset:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        contents = {"image": [{"bytes": picture(10)}] * len(labels), "label": list(labels)}
        return datasets.Dataset.from_dict(contents, features=features)

    datasets.DatasetDict({"train": rows(0, 1, 2, 3), "test": rows(3)}).save_to_disk(tmp_path / "few")
    assert [label for _, label in find_labelled_pictures(tmp_path / "few").held_out] == [3]
    datasets.DatasetDict({"train": rows(0, 1), "test": rows(2)}).save_to_disk(tmp_path / "more")
    with pytest.raises(ValueError, match=r"row 0 of .*test has the label 2; the classes of .*train are 0…1"):
        find_labelled_pictures(tmp_path / "more")


def check_every_tenth(found: LabelledPictures) -> None:
    assert shades(found.held_out) == [(0, 0), (10, 1)]
    assert [shade for shade, _ in shades(found.training)] == [shade for shade in range(12) if shade % 10]


def test_every_tenth_is_held_out_where_nothing_says_which(tmp_path: Path) -> None:
    path = shard(tmp_path / "all.tar", {shade: shade // 7 for shade in range(12)})
    check_every_tenth(find_labelled_pictures(path))
    for name, kept in (("one.tar", range(7)), ("two.tar", range(7, 12))):
        write_tar(tmp_path / "classes" / name, {f"{shade:02}.png": picture(shade) for shade in kept})
    found = find_labelled_pictures(tmp_path / "classes")
    assert found.classes == ["one", "two"]
    check_every_tenth(found)
    rows = {"image": [{"bytes": picture(shade)} for shade in range(12)], "label": [shade // 7 for shade in range(12)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    check_every_tenth(find_labelled_pictures(tmp_path / "saved"))


def test_other_rows_are_other_data(tmp_path: Path) -> None:
    digests = set()
    for number, shade in enumerate((1, 1, 2)):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        rows = {"image": [{"bytes": picture(value)} for value in (shade, 5, 6)], "label": [0, 1, 1]}
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / str(number))
        found = find_labelled_pictures(tmp_path / str(number))
        digests.add(
            TrainingPictures([*found.training, *found.held_out], TrainingAugmentation(size=(4, 5))).fingerprint()
        )
    assert len(digests) == 2


def test_examples_are_those_of_the_files(tmp_path: Path) -> None:
    found = find_labelled_pictures(write_parts(tmp_path))
    (tmp_path / "20.png").write_bytes(picture(20))
    augmentation = TrainingAugmentation(size=(4, 5))
    from_a_file = TrainingPictures([found.training[1]._replace(member=tmp_path / "20.png")], augmentation)  # type: ignore[union-attr]
    assert torch.equal(
        from_a_file[Draw(0, 4)]["image"], TrainingPictures(found.training, augmentation)[Draw(1, 4)]["image"]
    )


def test_data_that_are_refused(tmp_path: Path) -> None:
    def refused(source: Path, message: str, labels: Path | None = None) -> None:
        with pytest.raises(ValueError, match=message):
            find_labelled_pictures(source, labels=labels)

    owners = write_owners(tmp_path / "owners")
    refused(owners, "has pictures without their classes; give the file of these with --labels")
    train = owners / "ILSVRC2012_img_train.tar"
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    refused(owners, r"ILSVRC2012_img_train\.tar is not a whole, uncompressed tar archive")
    inner = tar_bytes(tmp_path, {"1.JPEG": picture(10), "2.JPEG": picture(20)})
    for cut in (700, len(inner) - 1024 * 8):
        write_tar(train, {"n00000010.tar": inner[:cut], "n00000020.tar": inner})
        refused(owners, r"n00000010\.tar in .*img_train\.tar is not a whole, uncompressed tar archive")
    alone = tmp_path / "alone"
    shard(alone / "val-0.tar", {10: 0})
    refused(alone, r"alone has archives to hold out alone, such as val-0\.tar")
    write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": b"0", "2.png": picture(2)})
    refused(tmp_path / "a.tar", r"2\.png in .* has no label beside it")
    for content in (b"cat", b'"cat"', b"NaN", b"Infinity", b"1.5"):
        write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": content})
        refused(tmp_path / "a.tar", r"1\.cls in .* does not hold the number of a class")
    write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": b"99999999999999999999"})
    refused(tmp_path / "a.tar", r"1\.png in .*a\.tar has the label 9{20}, more than there are pictures \(1\)")
    shard(tmp_path / "tests" / "test-0.tar", {10: 0})
    refused(tmp_path / "tests", "tests has archives to test alone; add some to train on")
    write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": b"-1"})
    refused(tmp_path / "a.tar", r"has the label -1; a label is the number of a class, from 0")
    refused(shard(tmp_path / "a.tar", {1: 0, 2: 0}), "pictures of one class only, '0'; there must be two or more")
    refused(shard(tmp_path / "a.tar", {1: 0}), "has a single picture, 001.png in .*; there must be one more")
    write_tar(tmp_path / "a.tar", {"readme.txt": b"text"})
    refused(tmp_path / "a.tar", "has no pictures .* in its archives")
    shard(tmp_path / "half" / "train" / "0.tar", {1: 0, 2: 1})
    refused(tmp_path / "half", "has archives and .* not the other of train and val; give both or one")
    datasets.Dataset.from_dict({"image": ["a", "b"], "label": [0, 1]}).save_to_disk(tmp_path / "words")
    refused(tmp_path / "words", "the column 'image' of .*words holds .* and not pictures")
