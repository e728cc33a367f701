"""The script that trains image classifiers, for a few steps: on digits, on folders, and from a model."""

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import perceiver_io
from examples.tiny import image_classification
from perceiver_io import ImageClassificationPerceiver
from perceiver_io.commands.train_options import add_task_arguments
from perceiver_io.processors import read_class_names
from perceiver_io.training import Draw
from perceiver_io.training.tasks.image_classification import TASK
from tests.training.test_tar_files import write_tar


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    return importlib.import_module("train_image_classification")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of two classes."""
    for number in range(12):
        path = tmp_path / "pictures" / ("cat" if number < 7 else "ant") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (20 * number, 0, 255)).save(path)
    return tmp_path / "pictures"


def run(script: ModuleType, output: Path, *options: str) -> tuple[ImageClassificationPerceiver, dict[str, object]]:
    """The model that a run of two steps leaves, and the notes beside it."""
    short = ["--steps", "2", "--batch-size", "4", "--device", "cpu", "--output", str(output)]
    script.main([*short, *options])
    model = perceiver_io.load_model(output / "model")
    assert isinstance(model, ImageClassificationPerceiver)
    return model, json.loads((output / "model" / "training.json").read_text(encoding="utf-8"))


def error_of(script: ModuleType, capsys: pytest.CaptureFixture[str], output: Path, *options: str) -> str:
    """The one line that a run ends with."""
    with pytest.raises(SystemExit) as ended:
        script.main([*options, "--steps", "1", "--device", "cpu", "--output", str(output)])
    assert ended.value.code == 2
    assert not output.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_tiny_model_is_tiny(script: ModuleType) -> None:
    model = perceiver_io.create_model("imagenet-fourier", **image_classification.CONFIG.to_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) < 250_000


def test_digits(script: ModuleType, tmp_path: Path) -> None:
    model, notes = run(script, tmp_path / "run", "--tiny")
    assert model.config == image_classification.CONFIG
    assert read_class_names(tmp_path / "run" / "model") == tuple("0123456789")
    assert notes["data"] == "scikit-learn's digits, 1437 of them; 360 others are held out"
    assert notes["results"].keys() == {"accuracy", "loss"}


def test_a_folder_with_a_damaged_picture(script: ModuleType, tmp_path: Path, folder: Path) -> None:
    (folder / "ant" / "09.png").write_bytes(b"")
    message = r"1 of 10 examples could not be used, .*; the first: .*ant/09\.png is not a picture that Pillow can read"
    with pytest.warns(UserWarning, match=message):
        # Two batches of twelve meet every one of ten pictures.
        model, notes = run(script, tmp_path / "run", "--tiny", "--data", str(folder), "--batch-size", "12")
    assert model.config.num_classes == 2
    assert read_class_names(tmp_path / "run" / "model") == ("ant", "cat")
    assert notes["data"] == f"10 pictures of {folder}; 2 others are held out"


def test_an_archive_augmented_on_the_device(script: ModuleType, tmp_path: Path, folder: Path) -> None:
    for name in ("ant", "cat"):
        pictures = {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}
        write_tar(tmp_path / "archives" / f"{name}.tar", pictures)
    options = ("--augment-on-device", "--jpeg-decoder", "simplejpeg", "--scaled-decoding", "--workers", "1")
    _, notes = run(script, tmp_path / "run", "--tiny", "--data", str(tmp_path / "archives"), *options)
    assert read_class_names(tmp_path / "run" / "model") == ("ant", "cat")
    assert notes["data"] == f"10 pictures of {tmp_path / 'archives'}; 2 others are held out"


def test_fine_tuning_for_other_classes(script: ModuleType, tmp_path: Path, folder: Path) -> None:
    first, _ = run(script, tmp_path / "first", "--tiny")
    source = str(tmp_path / "first" / "model")
    second, _ = run(script, tmp_path / "second", "--from", source, "--data", str(folder), "--freeze-encoder")
    assert second.config.num_classes == 2
    assert read_class_names(tmp_path / "second" / "model") == ("ant", "cat")
    before, after = first.state_dict(), second.state_dict()
    unchanged = {name for name in after if torch.equal(after[name], before[name])}
    assert unchanged >= {name for name in after if name.startswith("encoder.")}
    assert not any(name.startswith("output_query.") for name in unchanged)


def test_a_preset_has_the_papers_augmentation_and_recipe(folder: Path) -> None:
    parser = argparse.ArgumentParser()
    add_task_arguments(parser, TASK)
    arguments = parser.parse_args(["--preset", "imagenet-conv", "--data", str(folder), "--output", "elsewhere"])
    config = perceiver_io.create_config("imagenet-conv")
    material = TASK.prepare(arguments, config)
    example = material.dataset[Draw(3, 4)]
    assert example["image"].shape == example["partner_image"].shape == (3, 224, 224)
    assert material.objective.label_smoothing == 0.1


def test_a_preset_needs_pictures(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(script, capsys, tmp_path / "run", "--preset", "imagenet-fourier")
    assert error == "error: only --tiny has data of its own; name what to learn from with --data PATH"


def test_folders_without_use(
    script: ModuleType, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    (tmp_path / "parent").mkdir()
    folder = folder.rename(tmp_path / "parent" / "pictures")
    error = error_of(script, capsys, output, "--tiny", "--data", str(folder.parent))
    assert "has a folder of one class only, 'pictures'; there must be two or more" in error
    (folder / "bee").mkdir()
    error = error_of(script, capsys, output, "--tiny", "--data", str(folder / "bee"))
    assert f"{folder / 'bee'} has no folders in it" in error
    error = error_of(script, capsys, output, "--tiny", "--data", str(folder))
    assert "has no files of class 'bee' to train on" in error
