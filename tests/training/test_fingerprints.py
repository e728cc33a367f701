"""Fingerprints: the same data have the same one, and whatever is changed about them changes it."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from perceiver_io.training import Draw
from perceiver_io.training.augmentation import EvaluationCrop
from perceiver_io.training.data.class_folders import LabelledFile, find_labelled_files
from perceiver_io.training.data.clips import VideoFolder
from perceiver_io.training.data.flow import FlowFolder, find_pairs
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.fingerprints import content_digest, described, fingerprint, own_fingerprint, same
from perceiver_io.training.flow_augmentation import cropped
from perceiver_io.training.image_classification import Pairs
from perceiver_io.training.language import MaskedWords
from tests.training.small_run import Pictures
from tests.training.test_flow import write_chairs

DRAWS = [Draw(index, index + 5) for index in range(4)]


def images(folder: Path, size: int = 7) -> Any:
    files = find_labelled_files(folder, (".png",)).training
    return Pairs(SkipUnusable(ImageFolder(files, EvaluationCrop(size=(size, 7)))))


def clips(folder: Path, size: int = 7) -> Any:
    files = find_labelled_files(folder, (".png",)).training
    return SkipUnusable(VideoFolder(files, num_frames=size, image_size=(8, 8), audio_samples_per_frame=9))


def pairs(folder: Path, size: int = 7) -> Any:
    return SkipUnusable(FlowFolder(find_pairs(folder), cropped((size, 7))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8 + number)).save(path)
        write_chairs(tmp_path / "pairs", number)
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "renamed": lambda path: path.rename(path.with_stem(path.stem.replace("2", "22"))),
    "removed": lambda path: path.unlink(),
    "added": lambda path: shutil.copy(path, path.with_stem(path.stem.replace("2", "27"))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [images, clips])
def test_other_files_are_other_data(make: Callable[..., Any], change: str, folder: Path, tmp_path: Path) -> None:
    before = own_fingerprint(make(folder))
    assert before
    assert own_fingerprint(make(shutil.copytree(folder, tmp_path / "elsewhere"))) == before
    assert own_fingerprint(make(folder, size=6)) != before
    CHANGES[change](folder / "a" / "2.png")
    assert own_fingerprint(make(folder)) != before


def test_other_pairs_are_other_data(folder: Path) -> None:
    folder = folder.parent / "pairs"
    before = own_fingerprint(pairs(folder))
    assert own_fingerprint(pairs(folder, size=6)) != before
    for change in ("edited", "grown"):
        CHANGES[change](folder / "00002_img1.ppm")
        assert own_fingerprint(pairs(folder)) != before
        before = own_fingerprint(pairs(folder))


def test_other_labels_are_other_data(folder: Path) -> None:
    files = find_labelled_files(folder, (".png",)).training
    other = [LabelledFile(path, 1 - label) for path, label in files]
    prints = {own_fingerprint(ImageFolder(some, EvaluationCrop(size=(7, 7)))) for some in (files, other)}
    assert len(prints) == 2


def test_content_is_read_whole_or_in_samples_spread_over_all() -> None:
    generator = random.Random(0)
    for sizes in ([], [0, 0], [5], [0, 3, 0, 4096, 1], [1500] * 9, [700] * 9000, [6_000_000, 0, 1, 9_000_000]):
        seen = [0] * len(sizes)

        def read(number: int, start: int, end: int, sizes: list[int] = sizes, seen: list[int] = seen) -> bytes:
            assert 0 <= start < end <= sizes[number]
            seen[number] += end - start
            return bytes(end - start)

        assert content_digest(sizes, read) == content_digest(sizes, read)
        if sum(sizes) <= 2**22:
            assert seen == [2 * size for size in sizes]
        else:
            assert 2**22 <= sum(seen) / 2 <= 2**23
    contents = [generator.randbytes(size) for size in (3, 0, 5000, 7)]
    sizes = list(map(len, contents))
    digest = content_digest(sizes, lambda number, start, end: contents[number][start:end])
    joined = b"".join(contents)
    assert content_digest([len(joined)], lambda _, start, end: joined[start:end]) == digest


def test_a_file_that_goes_missing_changes_nothing_but_its_own(folder: Path) -> None:
    dataset = images(folder)
    before = own_fingerprint(dataset)
    (folder / "a" / "2.png").unlink()
    assert own_fingerprint(dataset) not in ("", before)


class Values:
    """Examples that are a function of their index."""

    def __init__(self, function: Callable[[int], Tensor]) -> None:
        self.function = function

    def __len__(self) -> int:
        return 9

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return {"x": self.function(draw.index)}


def test_of_other_data_sets_examples_are_looked_at() -> None:
    ramp = Values(lambda index: torch.arange(5.0) + index)
    before = fingerprint(ramp, DRAWS)
    assert isinstance(before, list)
    # Rounding, and the kind of wrapper, do not matter; order, size and values do.
    assert same(before, fingerprint(Values(lambda index: (torch.arange(5.0) + index) * (1 + 1e-6)), DRAWS))
    for other in (
        lambda index: torch.arange(5.0).flip(0) + index,
        lambda index: torch.arange(6.0) + index,
        lambda index: torch.arange(5.0) + index + (index == 3),
        lambda index: torch.full((5,), torch.nan),
    ):
        assert not same(before, fingerprint(Values(other), DRAWS))
    assert not same(before, own_fingerprint(ramp))
    nan = Values(lambda index: torch.full((5,), torch.nan))
    assert same(fingerprint(nan, DRAWS), fingerprint(nan, DRAWS))


def test_wrappers_of_data_sets_without_one_have_none() -> None:
    assert own_fingerprint(Pairs(Pictures())) == own_fingerprint(MaskedWords(Pictures())) == ""
    assert isinstance(fingerprint(SkipUnusable(Pictures()), DRAWS), list)


def test_an_example_that_cannot_be_read_now_agrees_with_any() -> None:
    def fails(index: int) -> Tensor:
        if index == 2:
            raise OSError
        return torch.ones(3)

    assert same(fingerprint(Values(fails), DRAWS), fingerprint(Values(lambda index: torch.ones(3)), DRAWS))


def test_settings_are_described_the_same_in_every_process() -> None:
    assert described(EvaluationCrop(size=(3, 4))) == "EvaluationCrop(size=(3, 4))"
    assert "0x" not in described(os.fspath) + described(lambda picture: picture) + described(Pictures())
