"""The original Perceiver, trained by the command and its recipe."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import UNRELEASED_PRESETS, create_config


def test_the_preset_trains_with_its_recipe_and_names_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    for kind in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (folder := tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            image.fromarray(pixels).save(folder / f"{number}.png")
    # The preset's kind of model, of a size that trains here.
    small = create_config(
        "perceiver-imagenet",
        index_dims=(12, 12),
        num_bands=2,
        num_latents=4,
        num_latent_channels=16,
        num_self_attend_heads=2,
        num_self_attends_per_block=1,
        num_blocks=2,
        num_cross_attends=2,
    )
    monkeypatch.setitem(UNRELEASED_PRESETS, "perceiver-imagenet", small)
    words = ["train", "image_classification", "--preset", "perceiver-imagenet", "--data", str(tmp_path / "data")]
    assert main([*words, "--output", str(tmp_path / "out"), "--steps", "2", "--batch-size", "2"]) == 0
    recipe = json.loads((tmp_path / "out" / "model" / "training.json").read_text())["recipe"]
    assert (recipe["learning_rate"], recipe["weight_decay"], recipe["max_gradient_norm"]) == (4e-3, 0.1, 10)
    assert recipe["optimizer"] == "lamb" and recipe["drops_at"] == [1, 2, 2]
    model = perceiver_io.load_model(tmp_path / "out" / "model")
    assert isinstance(model, perceiver_io.PerceiverClassifier) and model.config.num_classes == 2
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    picture = str(tmp_path / "data" / "val" / "cat" / "0.png")
    assert main(["classify", "--checkpoint", str(tmp_path / "out" / "model"), "--image", picture, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["images"]
    assert {one["name"] for one in result["classes"]} == {"cat", "dog"}
    # Its encoder serves for other classes.
    for part in ("train", "val"):
        shutil.copytree(tmp_path / "data" / part / "dog", tmp_path / "data" / part / "fox")
    words = ["train", "image_classification", "--from", str(tmp_path / "out" / "model"), "--data"]
    words += [str(tmp_path / "data"), "--output", str(tmp_path / "tuned"), "--steps", "1", "--batch-size", "2"]
    assert main(words) == 0
    assert perceiver_io.load_model(tmp_path / "tuned" / "model").config.num_classes == 3


def test_models_of_other_inputs_name_no_pictures() -> None:
    with pytest.raises(ValueError, match="pictures have 3 channels and 2 sizes"):
        _ = create_config("perceiver-modelnet40").image_size  # type: ignore[attr-defined]
