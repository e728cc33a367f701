"""The original Perceiver: the paper's counts, inputs of any number of axes, rounds, saving and mistakes."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io
from perceiver_io import PerceiverClassifier, undo_accelerate
from perceiver_io.inspection import example_inputs, inspect_stages
from perceiver_io.models.perceiver_classifier import ArrayPatches
from perceiver_io.presets import UNRELEASED_PRESETS
from tests.randomised import randomised
from tests.small_models import small_inputs
from tests.unchecked import unchecked

PRESETS = [name for name in UNRELEASED_PRESETS if name.startswith("perceiver-")]
_SIZES: dict[str, Any] = {
    "num_latents": 7,
    "num_latent_channels": 24,
    "num_self_attends_per_block": 2,
    "num_self_attend_heads": 3,
    "num_bands": 5,
    "num_classes": 11,
}
# Inputs of one, two and three axes, and points.
SMALL: dict[str, dict[str, Any]] = {
    "perceiver-imagenet": {"index_dims": (19, 25), "max_resolution": (19, 25), "num_blocks": 3, "num_cross_attends": 3},
    "perceiver-modelnet40": {"index_dims": (41,), "max_resolution": (9, 11, 13)},
    "perceiver-audioset-sound": {
        "index_dims": (84,), "patch_size": (4,), "max_resolution": (21,), "num_blocks": 2, "num_cross_attends": 2
    },
    "perceiver-audioset-film": {
        "index_dims": (4, 6, 15), "patch_size": (2, 3, 5), "max_resolution": (2, 2, 3),
        "num_blocks": 2, "num_cross_attends": 2, "num_input_channels": 2,
    },
}  # fmt: skip


def small(preset: str, **overrides: Any) -> PerceiverClassifier:
    model = perceiver_io.create_model(preset, **{**_SIZES, **SMALL[preset], **overrides})
    assert isinstance(model, PerceiverClassifier)
    return randomised(model)


def on_meta(preset: str) -> Any:
    with torch.device("meta"):
        return perceiver_io.create_model(preset)


def test_the_papers_counts() -> None:
    """44.9 million parameters and 707 billion operations, as the paper has it; it leaves open how these are counted.

    Parameters: 6 layers of 6.3 M, shared by all rounds; 2 cross-attentions of 2.8 M, of which the second is shared;
    latents 0.5 M; head 1.0 M. Operations, each multiplication and each addition being one: 706.3 G in the products of
    48 layers (361 G) and of 8 cross-attentions (345 G: keys, values and scores for 50,176 pixels of 261 channels). With
    the addition of biases (0.4 G) and the scaling of scores (0.3 G) these are 707.0 G.
    """
    model = on_meta("perceiver-imagenet")
    assert model.encoder.rounds == perceiver_io.perceiver_rounds(8)
    assert len(model.encoder.cross_attends) == 2
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 44.9
    flops = sum(stage.flops for stage in inspect_stages(model))
    layer = 512 * 6 * 1024**2 + 2 * 512**2 * 1024
    cross = 2 * 50_176 * 261**2 + 2 * 512 * 50_176 * 261 + 512 * (2 * 261 * 1024 + 2 * 1024**2)
    assert flops == 2 * (48 * layer + 8 * cross + 1024 * 1000)
    biases = 48 * 512 * 6 * 1024 + 8 * (2 * 50_176 * 261 + 512 * (261 + 3 * 1024)) + 1000
    scores = 48 * 8 * 512**2 + 8 * 512 * 50_176
    assert round((flops + biases + scores) / 1e9) == 707


@pytest.mark.parametrize(
    ("preset", "tokens", "channels"),
    [
        ("perceiver-imagenet", 50_176, 3 + 2 * 129),
        ("perceiver-modelnet40", 2000, 3 * 129),
        ("perceiver-audioset-sound", 480, 128 + 129),
        ("perceiver-audioset-film", 12_544, 384 + 3 * 129),
    ],
)
def test_the_papers_numbers_of_inputs(preset: str, tokens: int, channels: int) -> None:
    model = on_meta(preset)
    preprocessor = inspect_stages(model)[0]
    assert preprocessor.output_shapes == [(1, tokens, channels)]


@pytest.mark.parametrize("preset", PRESETS)
def test_outputs_accelerated_plain_and_loaded(preset: str, tmp_path: Path) -> None:
    model = small(preset).eval()
    inputs = small_inputs(model)
    assert [x.shape[1:] for x in example_inputs(model)] == [x.shape[1:] for x in inputs]
    with torch.no_grad():
        logits = model(*inputs)
        plain = undo_accelerate(copy.deepcopy(model))(*inputs)
    assert logits.shape == (2, 11)
    assert (logits - plain).abs().max() <= 1e-5 * plain.std()
    perceiver_io.save_model(model, tmp_path / "model")
    loaded = perceiver_io.load_model(tmp_path / "model")
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), logits)


def test_rounds_are_what_they_say() -> None:
    model = undo_accelerate(small("perceiver-imagenet"))
    (images,) = small_inputs(model)
    tokens = model.input_preprocessor(images).tokens
    encoder = model.encoder
    x = encoder.latents()
    for cross_attend in (encoder.cross_attend, *2 * [encoder.further_cross_attends[0]]):
        x = cross_attend(x, tokens)
        for self_attend in encoder.self_attends:
            x = self_attend(x)
    assert torch.allclose(model(images), model.decoder.output(x.mean(1)), atol=1e-6)


def test_inputs_are_a_set_and_other_sizes_are_taken() -> None:
    model = small("perceiver-modelnet40").eval()
    points = torch.randn(2, 3, 33)
    with torch.no_grad():
        assert torch.allclose(model(points), model(points[..., torch.randperm(33)]), atol=1e-5)
        assert small("perceiver-imagenet")(torch.randn(1, 3, 8, 31)).shape == (1, 11)
        assert small("perceiver-audioset-film")(torch.randn(1, 2, 2, 3, 5)).shape == (1, 11)


def test_patches_are_cut_in_row_major_order() -> None:
    arrays = torch.randn(2, 3, 4, 6, 10)
    patches = ArrayPatches(3, (2, 3, 5))(arrays)
    assert patches.shape == (2, 2, 2, 2, 90)
    expected: list[Tensor] = [
        arrays[1, :, 2 + t, h, 5 + w] for t in range(2) for h in range(3) for w in range(5)
    ]  # of the patch at (1, 0, 1)
    assert torch.equal(patches[1, 1, 0, 1], torch.cat(expected))
    assert math.prod(patches.shape) == arrays.numel()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"index_dims": ()}, r"index_dims \(\) must have one or more entries"),
        ({"index_dims": (8,)}, r"patch_size \(1, 1\) must have an entry per axis of index_dims \(8,\)"),
        ({"patch_size": (5, 1)}, r"patch_size \(5, 1\) must divide index_dims \(224, 224\)"),
        ({"max_resolution": (9,)}, r"max_resolution \(9,\) must have 2 entries, one per axis of index_dims"),
        ({"inputs": "points"}, r"inputs 'points' have one axis, and no patches"),
        ({"inputs": "voxels"}, r"inputs \('voxels'\) must be one of 'grid', 'points'"),
        ({"num_blocks": 7}, r"num_cross_attends \(8\) must be at most num_blocks \(7\)"),
    ],
)
def test_configuration_errors(overrides: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        perceiver_io.create_config("perceiver-imagenet", **overrides)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with unchecked():
        with pytest.raises(ValueError, match=r"inputs \(2, 19, 25, 3\) must be \[batch, 3, …\] with 2 axes"):
            small("perceiver-imagenet")(torch.randn(2, 19, 25, 3))
        with pytest.raises(ValueError, match=r"patch_size \(4,\) must divide inputs of sizes \(83,\)"):
            small("perceiver-audioset-sound")(torch.randn(2, 1, 83))
