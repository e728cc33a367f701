"""The released models by name, and their configurations."""

import json
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.presets import PRESETS
from tests.unchecked import unchecked

# Millions of parameters of the released models, as published.
PARAMETERS = {
    "language": 201.1,
    "imagenet-learned": 62.3,
    "imagenet-fourier": 48.4,
    "imagenet-conv": 48.6,
    "optical-flow": 41.1,
    "video-autoencoding": 19.9,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_number_of_parameters(preset: str) -> None:
    with torch.device("meta"):
        model = perceiver_io.create_model(preset)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == PARAMETERS[preset]


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("bert", {}, "there is no preset 'bert'; presets are language, imagenet-fourier"),
        ("language", {"layers": 3}, "LanguageConfig has no field layers; its fields are"),
        ("language", {"num_latents": 0}, r"num_latents \(0\) must be a positive integer"),
        ("language", {"num_decoder_heads": 3}, r"num_decoder_heads \(3\) must divide qk_channels \(256\)"),
        ("imagenet-conv", {"featurizer": "vit"}, r"featurizer \('vit'\) must be one of 'conv', 'pixels', 'conv1x1'"),
        ("imagenet-conv", {"image_size": (224,)}, r"image_size \(224,\) must have 2 entries"),
        ("imagenet-conv", {"image_size": 224}, "image_size 224 must have 2 entries"),
        ("imagenet-conv", {"decoder_query_residual": "no"}, r"decoder_query_residual \('no'\) must be true or false"),
        ("optical-flow", {"flow_scale": float("nan")}, r"flow_scale \(nan\) must be a finite number"),
        ("optical-flow", {"num_self_attend_heads": 7}, r"must divide num_latent_channels \(512\)"),
        ("video-autoencoding", {"patch_size": 5}, r"patch_size \(5\) must divide image_size"),
        ("video-autoencoding", {"audio_samples_per_patch": 7}, "must divide the clip's samples"),
    ],
)
def test_configuration_errors(preset: str, overrides: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        perceiver_io.create_config(preset, **overrides)


def test_configurations_are_frozen_and_survive_json() -> None:
    for preset, config in PRESETS.items():
        assert type(config).from_dict(json.loads(config.to_json())) == config
        assert perceiver_io.create_config(preset) == config
    with pytest.raises(AttributeError):
        PRESETS["language"].num_latents = 3  # type: ignore[attr-defined]
