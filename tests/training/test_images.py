"""Folders of pictures, damaged ones among them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from perceiver_io.media import load_image
from perceiver_io.media.picture_files import Decoding
from perceiver_io.training import Draw, DrawSampler
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.data.class_folders import LabelledFile, find_labelled_files
from perceiver_io.training.data.images import PICTURE_SUFFIXES, ImageFolder
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.data.training_pictures import TrainingPictures


def as_it_is(picture: Tensor, generator: torch.Generator) -> Tensor:
    return picture.float()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with two pictures each, all of another shade, and files that are no pictures."""
    for number, name in enumerate(["cat/a.png", "cat/b.JPEG", "ant/c.bmp", "ant/deep/d.png", "bee/e.png", "bee/f.png"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 6 + number), (40 * number, 0, 255)).save(path)
    (tmp_path / "pictures" / "readme.txt").write_text("not a class")
    (tmp_path / "pictures" / "ant" / "notes.txt").write_text("not a picture")
    (tmp_path / "pictures" / ".cache").mkdir()
    return tmp_path / "pictures"


def files_of(folder: Path) -> list[LabelledFile]:
    """All pictures, in the order of their classes."""
    _, training, held_out = find_labelled_files(folder, PICTURE_SUFFIXES)
    return sorted(training + held_out)


def test_pictures_of_all_kinds_are_found(folder: Path) -> None:
    names = [(path.relative_to(folder).as_posix(), label) for path, label in files_of(folder)]
    assert names == [
        ("ant/c.bmp", 0),
        ("ant/deep/d.png", 0),
        ("bee/e.png", 1),
        ("bee/f.png", 1),
        ("cat/a.png", 2),
        ("cat/b.JPEG", 2),
    ]


def test_an_example(folder: Path) -> None:
    dataset = ImageFolder(files_of(folder), as_it_is)
    assert len(dataset) == 6
    example = dataset[Draw(3, 0)]
    assert example["label"] == 1
    assert torch.equal(example["image"].byte(), torch.from_numpy(load_image(folder / "bee/f.png")).permute(2, 0, 1))
    assert example["image"].shape == (3, 11, 9)


def test_examples_depend_on_the_draw_alone(folder: Path) -> None:
    dataset = ImageFolder(files_of(folder), TrainingAugmentation(size=(7, 8)))
    first, same = dataset[Draw(4, 5)], dataset[Draw(4, 5)]
    assert torch.equal(first["image"], same["image"])
    assert any(not torch.equal(first["image"], dataset[Draw(4, seed)]["image"]) for seed in range(6, 12))


def test_an_empty_data_set() -> None:
    with pytest.raises(ValueError, match="a data set needs at least one picture file"):
        ImageFolder([], as_it_is)


@pytest.fixture
def damaged(folder: Path) -> Path:
    """The same folder with two of its pictures cut short, or no pictures at all."""
    whole = (folder / "ant/deep/d.png").read_bytes()
    (folder / "ant/deep/d.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bee/e.png").write_bytes(b"")
    return folder


def test_a_damaged_picture_is_named(damaged: Path) -> None:
    dataset = ImageFolder(files_of(damaged), as_it_is)
    with pytest.raises(ValueError, match=r"ant/deep/d\.png is not a picture that Pillow can read"):
        dataset[Draw(1, 0)]
    (damaged / "cat/b.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture at .*cat/b\.JPEG"):
        dataset[Draw(5, 0)]
    Image.new("RGB", (1, 9)).save(damaged / "cat/a.png")
    cropping = ImageFolder(dataset.files, EvaluationCrop(size=(4, 5)))
    with pytest.raises(ValueError, match=r"cat/a\.png: a picture of 9×1 pixels is too small to crop for 4×5"):
        cropping[Draw(4, 0)]


def test_damaged_pictures_are_left_out_counted_and_reported(damaged: Path) -> None:
    dataset = SkipUnusable(ImageFolder(files_of(damaged), EvaluationCrop(size=(4, 5))))
    draws = DrawSampler(6, batch_size=3, num_steps=2)
    batches = list(DataLoader(dataset, batch_sampler=draws, num_workers=2))  # type: ignore[arg-type]
    assert [batch["image"].shape for batch in batches] == [(3, 3, 4, 5)] * 2
    with pytest.warns(
        UserWarning, match=r"2 of 6 examples could not be used, .*; the first: .*d\.png is not a picture"
    ):
        dataset.warn_of_unusable()


def test_training_pictures_are_those_of_the_folder_by_default(folder: Path) -> None:
    augmentation = TrainingAugmentation(size=(7, 8))
    plain, cropping = (kind(files_of(folder), augmentation) for kind in (ImageFolder, TrainingPictures))
    assert cropping.fingerprint() == plain.fingerprint()
    for index in range(6):
        assert torch.equal(cropping[Draw(index, index)]["image"], plain[Draw(index, index)]["image"])
        assert cropping[Draw(index, index)]["label"] == plain[Draw(index, index)]["label"]


def test_scaled_decoding_makes_about_the_same_pictures_and_other_data(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    smooth = torch.randint(256, (9, 12, 3), dtype=torch.uint8, generator=random)
    Image.fromarray(smooth.numpy()).resize((480, 360)).save(tmp_path / "a.jpg", quality=95)
    augmentation = TrainingAugmentation(size=(24, 32), rand_augment=None)
    files = [LabelledFile(tmp_path / "a.jpg", 0)]
    exact, scaled = (TrainingPictures(files, augmentation, Decoding(scaled=one)) for one in (False, True))
    assert exact.fingerprint() != scaled.fingerprint()
    faster = TrainingPictures(files, augmentation, Decoding(scaled=True, decoder="simplejpeg"))
    assert faster.fingerprint() == scaled.fingerprint()
    differences = []
    for seed in range(12):
        draw = Draw(0, seed)
        assert torch.equal(scaled[draw]["image"], faster[draw]["image"])
        differences.append((exact[draw]["image"] - scaled[draw]["image"]).abs().mean())
    assert 0 < torch.stack(differences).median() < 0.15, differences


def test_damaged_training_pictures_are_named(damaged: Path) -> None:
    dataset = TrainingPictures(files_of(damaged), TrainingAugmentation(size=(4, 5)))
    with pytest.raises(ValueError, match=r"ant/deep/d\.png is not a picture that Pillow can read"):
        dataset[Draw(1, 0)]
    (damaged / "cat/b.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture at .*cat/b\.JPEG"):
        dataset[Draw(5, 0)]
    Image.new("RGB", (300, 1)).save(damaged / "cat/a.png")
    with pytest.raises(ValueError, match=r"cat/a\.png: a picture of 1×300 pixels is too small to crop for 4×5"):
        dataset[Draw(4, 0)]
    with pytest.raises(ValueError, match="a data set needs at least one picture file"):
        TrainingPictures([], TrainingAugmentation(size=(4, 5)))
