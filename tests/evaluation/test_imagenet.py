"""ImageNet's protocol: the owners' layouts, and figures that are known by construction."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from perceiver_io.evaluation.imagenet import ImageNetProtocol
from perceiver_io.evaluation.running import example_of, measured
from perceiver_io.processors.preparation import MEAN_RGB, STDDEV_RGB
from perceiver_io.training import Draw
from perceiver_io.training.data.imagenet import find_validation_pictures, read_labels
from tests.training.test_tar_files import write_tar

# Seven classes, whose WordNet ids are not in the order of the development kit's numbers.
IDS = ["n00000040", "n00000010", "n00000070", "n00000020", "n00000060", "n00000030", "n00000050"]
CLASSES = sorted(IDS)
NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 15)]
# Of each picture: its class, and the one that its brightness says it is.
LABELS = [number % 7 for number in range(14)]
SEEN = [0, 1, 2, 3, 4, 5, 6, 0, 2, 2, 6, 5, 6, 1]


class Brightness(nn.Module):
    """Knows a class by its pictures' brightness: 20, 50, 80, …; others are the less likely the further off."""

    def forward(self, images: Tensor) -> Tensor:
        mean, deviation = (255 * torch.tensor(values)[:, None, None] for values in (MEAN_RGB, STDDEV_RGB))
        brightness = (images * deviation + mean).mean((1, 2, 3))
        return -(brightness[:, None] - (20 + 30 * torch.arange(7))).abs()


def picture(seen: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (20 + 30 * seen,) * 3).save(file, "PNG")
    return file.getvalue()


def write_folders(folder: Path) -> None:
    for name, label, seen in zip(NAMES, LABELS, SEEN, strict=True):
        (folder / "val" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        (folder / "val" / CLASSES[label] / name).write_bytes(picture(seen))


def write_owners(folder: Path) -> None:
    # In another order than that of the names.
    write_tar(folder / "val.tar", {name: picture(seen) for name, seen in reversed(list(zip(NAMES, SEEN, strict=True)))})


def write_kit(folder: Path) -> None:
    write_owners(folder)
    numbers = [IDS.index(CLASSES[label]) + 1 for label in LABELS]
    (folder / "labels.txt").write_text("\n".join(map(str, numbers)) + "\n")
    # A group of classes follows them.
    rows = [(number, name, 0) for number, name in enumerate(IDS, start=1)] + [(8, "n00000001", 7)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})


def write_kaggle(folder: Path) -> None:
    write_owners(folder)
    lines = [f"{name[:-5]},{CLASSES[label]} 1 2 3 4 " for name, label in zip(NAMES, LABELS, strict=True)]
    (folder / "labels.txt").write_text("\n".join(["ImageId,PredictionString", *lines[::-1]]))


def write_pairs(folder: Path) -> None:
    write_owners(folder)
    (folder / "labels.txt").write_text("".join(f"{name} {label}\n" for name, label in zip(NAMES, LABELS, strict=True)))


def write_ids(folder: Path) -> None:
    write_owners(folder)
    (folder / "labels.txt").write_text("".join(f"{CLASSES[label]}\n" for label in LABELS))


def write_shards(folder: Path) -> None:
    for shard in (0, 1):
        contents = {}
        for number in range(shard, 14, 2):
            label = str(LABELS[number]) if number % 3 else json.dumps({"label": LABELS[number]})
            contents[f"{number:06}.jpg"] = picture(SEEN[number])
            contents[f"{number:06}.{'cls' if number % 3 else 'json'}"] = label.encode()
        write_tar(folder / f"imagenet-val-{shard:06}.tar", contents)


LAYOUTS = [write_folders, write_kit, write_kaggle, write_pairs, write_ids, write_shards]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_gives_the_known_figures(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    labels = tmp_path / "labels.txt"
    files = find_validation_pictures(tmp_path, 7, labels=labels if labels.exists() else None)
    protocol = ImageNetProtocol(files, (12, 16), [f"class {n}" for n in range(7)], "made")
    model = Brightness()
    found = measured(protocol, model, tmp_path / "out", {}, batch_size=4)
    # By hand: of the second seven, those of 0 and 2 are right; of the others all are among the five but 6 seen as 1.
    assert protocol.figures(found.outcomes) == {
        "top1": pytest.approx(100 * 9 / 14),
        "top5": pytest.approx(100 * 13 / 14),
    }
    # torchmetrics' own top 5, from the logits.
    batches = [protocol.collate([protocol.dataset[draw]]) for draw in (Draw(index, 0) for index in range(14))]
    logits = torch.cat([model(batch["image"]) for batch in batches])
    targets = torch.cat([batch["label"] for batch in batches])
    top5 = multiclass_accuracy(logits, targets, num_classes=7, top_k=5, average="micro")
    assert protocol.figures(found.outcomes)["top5"] == pytest.approx(100 * float(top5))
    worst = int(protocol.badness(found.outcomes).argmax())
    example = example_of(protocol, model, worst)
    assert example.title.startswith("class 6 (")
    assert len(example.classes) == 5
    ((_, pixels),) = example.pictures
    assert pixels.shape == (12, 16, 3)
    assert len(np.unique(pixels)) == 1


def test_folders_named_as_the_models_classes_are_these(tmp_path: Path) -> None:
    for name in ("ten", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture(0))
    files = find_validation_pictures(tmp_path, 3, names=["one", "two", "ten"])
    assert [label for _, label in files] == [2, 1]
    with pytest.raises(ValueError, match=r"has 2 folders of classes \(ten, two\) and the model knows 3 classes"):
        find_validation_pictures(tmp_path, 3, names=["one", "two", "three"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "has 2 labels for 14 pictures"),
        ("3\n" * 13 + "9\n", "has the label '9', which is no class of the meta.mat beside it"),
        ("".join(f"{name} 7\n" for name in NAMES), r"has the label 7; the model knows the classes 0…6"),
        ("".join(f"{name} -1\n" for name in NAMES), "has the label '-1'; a label is a number from 0"),
        ("".join(f"{name} 1\n" for name in NAMES[1:]), "has no label for the picture ILSVRC2012_val_00000001"),
        ("".join(f"{name} n00000010\n" for name in NAMES), "names 1 of the 7 classes"),
        ("a b c\n", "is not a file of labels"),
        ("", "is not a file of labels"),
        ("\xff", "is not a text file of labels"),
    ],
)
def test_labels_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    write_kit(tmp_path)
    (tmp_path / "labels.txt").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        find_validation_pictures(tmp_path / "val.tar", 7, labels=tmp_path / "labels.txt")


def test_pictures_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"

    def read(text: str, *pictures: str) -> list[int]:
        labels.write_text(text)
        return read_labels(labels, pictures, 7)

    assert read("a/1.jpg 3\nb/1.jpg 4\n", "b/1.jpg", "a/1.jpg") == [4, 3]
    # Where one of the two has no folder, the name alone counts.
    assert read("val/1.jpg 3\nval/2.jpg 4\n", "1.jpg", "2.jpg") == [3, 4]
    assert read("1 3\n2 4\n", "val/1.jpg", "val/2.jpg") == [3, 4]
    for text, pictures in (("1.jpg 3\n", ("a/1.jpg", "b/1.jpg")), ("a/1.jpg 3\nb/1.jpg 4\n", ("1.jpg",))):
        with pytest.raises(ValueError, match="does not say which label is that of"):
            read(text, *pictures)
    with pytest.raises(ValueError, match="does not say which label is that of"):
        read("1.jpg 3\n1.jpg 4\n", "1.jpg")
    with pytest.raises(ValueError, match=r"has no label for the picture b/1\.jpg"):
        read("a/1.jpg 3\n", "b/1.jpg")
    with pytest.raises(ValueError, match=r"of which 2 are called 1\.jpg; give lines PICTURE CLASS"):
        read("n00000001\nn00000002\n", "a/1.jpg", "b/1.jpg")


def test_data_that_are_incomplete(tmp_path: Path) -> None:
    write_kit(tmp_path)
    labels = tmp_path / "labels.txt"
    with pytest.raises(ValueError, match="has pictures without their classes; give the file of these with --labels"):
        find_validation_pictures(tmp_path / "val.tar", 7)
    with pytest.raises(FileNotFoundError, match=r"there is no folder or archive .*nowhere"):
        find_validation_pictures(tmp_path / "nowhere", 7)
    (tmp_path / "meta.mat").rename(tmp_path / "moved.mat")
    with pytest.raises(FileNotFoundError, match=r"the file .*meta\.mat explains and which is not there"):
        find_validation_pictures(tmp_path / "val.tar", 7, labels=labels)
    (tmp_path / "meta.mat").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"meta\.mat is not the development kit's table of classes"):
        find_validation_pictures(tmp_path / "val.tar", 7, labels=labels)
    with pytest.raises(FileNotFoundError, match="there is no file of labels"):
        find_validation_pictures(tmp_path / "val.tar", 7, labels=tmp_path / "none.txt")
    whole = (tmp_path / "val.tar").read_bytes()
    (tmp_path / "val.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"val\.tar is not a whole, uncompressed tar archive"):
        find_validation_pictures(tmp_path / "val.tar", 7, labels=labels)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a.jpg": b"", "a.cls": b"7"}, "a.cls in .* has the label 7; the model knows the classes 0…6"),
        ({"a.jpg": b"", "a.cls": b"dog"}, "a.cls in .* does not hold the number of a class"),
        ({"a.jpg": b"", "a.json": b'{"class": 1}'}, "a.json in .* does not hold the number of a class"),
        ({"a.jpg": b"", "b.jpg": b"", "b.cls": b"1"}, "a.jpg in .* has no label beside it"),
        ({"b.cls": b"1"}, "b.cls in .* has no picture beside it"),
        ({"notes.txt": b"1"}, "has no pictures"),
    ],
)
def test_shards_that_do_not_fit(contents: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "shard.tar", contents)
    with pytest.raises(ValueError, match=message):
        find_validation_pictures(tmp_path, 7)
