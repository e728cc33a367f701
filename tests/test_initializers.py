"""Initial values: the moments that the reference starts from, measured on large tensors."""

import math

import pytest
import torch
from torch import Tensor, nn

import perceiver_io
from perceiver_io import Attention, PerceiverDecoder, ProjectionDecoder
from perceiver_io.convolutions import Conv2DDownsample, Conv2DUpsample, Conv3DUpsample
from perceiver_io.initializers import haiku_linear
from perceiver_io.multimodal import ChannelPadding
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.preprocessors import ByteEmbedding

# Deviation of a unit normal truncated at ±2.
TRUNCATED = 0.8796


def check(values: Tensor, std: float) -> None:
    """Truncated normal of this untruncated deviation: zero mean, 0.88 of the deviation, nothing beyond twice of it."""
    values, n = values.detach(), values.numel()
    assert values.mean().abs() < 5 * std / math.sqrt(n)
    assert values.std().item() == pytest.approx(TRUNCATED * std, rel=5 / math.sqrt(n))
    assert 1.9 * std < values.abs().max() <= 2 * std * (1 + 1e-6)


def test_attention_and_mlp_are_variance_scaled() -> None:
    attention = Attention(400, 300, num_heads=4, v_channels=200)
    for linear in (attention.query, attention.key, attention.value, attention.output):
        check(linear.weight, 1 / math.sqrt(linear.in_features) / TRUNCATED)
        assert linear.bias.eq(0).all()


@pytest.mark.parametrize(
    "layer",
    [
        haiku_linear(300, 500),
        Conv2DDownsample(30, 64).convolutions[0],
        Conv2DUpsample(60, 64).layers[0],
        Conv3DUpsample(30, 32).layers[0],
    ],
)
def test_other_layers_are_not_corrected_for_the_truncation(layer: nn.Module) -> None:
    transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    fan_in = weight.numel() // weight.shape[1 if transposed else 0]
    check(weight, 1 / math.sqrt(fan_in))
    assert bias is None or (isinstance(bias, Tensor) and bias.eq(0).all())


def test_embeddings() -> None:
    check(LearnedPositionEncoding(500, 300).embeddings, 0.02)
    check(ByteEmbedding(500, 300).weight, 1.0)
    check(ChannelPadding({"a": 1, "b": 9}, 100_000).get_parameter("a"), 0.02)


def test_zero_initialised_outputs() -> None:
    assert ProjectionDecoder(8, 5).output.weight.eq(0).all()
    decoder = PerceiverDecoder(6, 8, output_channels=2, zero_init_output=True)
    assert decoder.output is not None
    assert decoder.output.weight.eq(0).all()


def test_new_flow_model_predicts_no_motion() -> None:
    model = perceiver_io.create_model(
        "optical-flow",
        image_size=(6, 8),
        num_bands=2,
        num_latents=3,
        num_latent_channels=16,
        num_self_attends_per_block=1,
    )
    assert model(torch.randn(1, 3, 6, 8), torch.randn(1, 3, 6, 8)).eq(0).all()
