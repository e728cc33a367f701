"""startai's specification and constructor: the documented program, the released model, other values, mistakes."""

from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.compat import startai
from perceiver_io.compat.startai import PerceiverIOSpec, perceiver_io_img_classification
from tests.randomised import randomised
from tests.unchecked import unchecked

DOCUMENTED: dict[str, Any] = {
    "input_dim": 3,
    "num_input_axes": 2,
    "output_dim": 1000,
    "queries_dim": 1024,
    "network_depth": 8,
    "learn_query": True,
    "query_shape": [1],
    "num_fourier_freq_bands": 64,
    "num_lat_att_per_layer": 6,
    "device": "cpu",
}
SMALL: dict[str, Any] = {
    "input_dim": 3,
    "num_input_axes": 2,
    "output_dim": 11,
    "queries_dim": 24,
    "network_depth": 2,
    "num_latents": 7,
    "latent_dim": 24,
    "num_self_att_heads": 3,
    "cross_head_dim": 25,
    "latent_head_dim": 8,
    "learn_query": True,
    "query_shape": [1],
    "num_lat_att_per_layer": 2,
    "num_fourier_freq_bands": 5,
}


def test_at_the_documented_values_it_is_imagenet_fourier() -> None:
    with torch.device("meta"):
        model = perceiver_io_img_classification(PerceiverIOSpec(**{**DOCUMENTED, "device": "meta"}), pretrained=False)
        released = perceiver_io.create_model("imagenet-fourier")
    ours, theirs = model.perceiver.state_dict(), released.state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}


def test_the_documented_program_with_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the released sizes but for depth, which the file of weights does not tell."""
    monkeypatch.setenv("PERCEIVER_IO_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fetch it with: perceiver-io download imagenet-fourier"):
        perceiver_io_img_classification(PerceiverIOSpec(**DOCUMENTED))
    released = randomised(perceiver_io.create_model("imagenet-fourier", num_blocks=1)).eval()
    perceiver_io.save_model(released, tmp_path / "imagenet-fourier")
    model = perceiver_io_img_classification(PerceiverIOSpec(**DOCUMENTED, max_fourier_freq=224))
    assert not model.training
    model.perceiver.encoder.rounds = released.encoder.rounds
    image = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        output = model(image.movedim(1, -1))
        expected = released(image)
    assert output.shape == (1, 1, 1000)
    assert (output[:, 0] - expected).abs().max() <= 1e-5 * expected.std()


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (2, 1, 11)),
        ({"query_shape": (4, 3)}, (2, 4, 3, 11)),
        ({"with_final_head": False}, (2, 1, 24)),
        ({"weight_tie_layers": False, "cross_attend_in_every_layer": True}, (2, 1, 11)),
        ({"fourier_encode_input": False, "num_cross_att_heads": 2, "cross_head_dim": 6}, (2, 1, 11)),
        ({"attn_dropout": 0.1, "fc_dropout": 0.2, "max_fourier_freq": 20.0}, (2, 1, 11)),
    ],
)
def test_other_values_build(changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = perceiver_io_img_classification(PerceiverIOSpec(**{**SMALL, **changes}), pretrained=False)
    data = torch.rand(2, 9, 13, 3)
    assert model(data).shape == shape
    assert model(data[0]).shape == shape[1:]
    assert model(data[None], mask=torch.ones(2, 9, 13, dtype=torch.bool)).shape == (1, *shape)
    mlp = model.perceiver.encoder.self_attends[0].mlp
    assert mlp.dropout_prob == changes.get("fc_dropout", 0)


def test_queries_and_other_axes() -> None:
    spec = PerceiverIOSpec(**{**SMALL, "learn_query": False, "num_input_axes": 1})
    model = startai.ImageClassifier(spec)
    assert model(torch.rand(2, 33, 3), queries=torch.rand(2, 4, 5, 24)).shape == (2, 4, 5, 11)
    with pytest.raises(ValueError, match=r"queries are needed: .* learn_query \(False\)"):
        model(torch.rand(2, 33, 3))
    with unchecked(), pytest.raises(ValueError, match=r"data \(2, 3, 33\) must be .* input_dim \(3\) channels"):
        model(torch.rand(2, 3, 33))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"with_decoder": False}, r"with_decoder \(False\) is not built here"),
        ({"query_shape": None}, r"learn_query \(True\) needs query_shape"),
        ({"max_fourier_freq": 20.5}, r"max_fourier_freq \(20\.5\) must be a positive whole number"),
        ({"network_depth": 0}, r"network_depth \(0\) must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOSpec(**{**SMALL, **changes})


def test_released_weights_need_the_released_sizes() -> None:
    with pytest.raises(ValueError, match=r"differs in output_dim \(10, not 1000\), num_latents \(9, not 512\); change"):
        perceiver_io_img_classification(PerceiverIOSpec(**{**DOCUMENTED, "output_dim": 10, "num_latents": 9}))
