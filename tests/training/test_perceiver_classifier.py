"""The original Perceiver, trained by the command and its recipe."""

import json
from pathlib import Path

import numpy as np
import pytest

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import UNRELEASED_PRESETS, create_config


def test_the_preset_trains_with_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
