"""The table of names against the parameter trees of the six released checkpoints, without weights."""

import json

import pytest
import torch

from perceiver_io.presets import PRESETS, model_from_config
from perceiver_io.weights.haiku import name_table
from perceiver_io.weights.haiku_conversion import fitting_presets, haiku_shapes
from tests.golden import GOLDEN_DIR

TREES = {
    "language": "language_perceiver_io_bytes",
    "imagenet-learned": "imagenet_learned_position_encoding",
    "imagenet-fourier": "imagenet_fourier_position_encoding",
    "imagenet-conv": "imagenet_conv_preprocessing",
    "optical-flow": "optical_flow_checkpoint",
    "video-autoencoding": "video_autoencoding_checkpoint",
}


def official_shapes(preset: str) -> dict[str, tuple[int, ...]]:
    tree = json.loads((GOLDEN_DIR / "official_trees" / f"{TREES[preset]}.json").read_text())
    if "params" in tree:
        tree = {**tree["params"], **tree["state"]}
    return {name: tuple(shape) for name, shape in tree.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_released_trees(preset: str) -> None:
    assert haiku_shapes(PRESETS[preset]) == official_shapes(preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_tensor_has_one_row(preset: str) -> None:
    table = name_table(PRESETS[preset])
    with torch.device("meta"):
        expected = model_from_config(PRESETS[preset]).state_dict()
    assert sorted(row.target for row in table) == sorted(expected)
    assert len({row.source for row in table}) == len(table)


@pytest.mark.parametrize("preset", PRESETS)
def test_released_trees_fit_their_preset_alone(preset: str) -> None:
    assert fitting_presets(official_shapes(preset)) == [preset]
