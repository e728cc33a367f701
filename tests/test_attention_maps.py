"""Recorded attention: what the plain formulation uses, whatever path the model takes, and no trace of the recording."""

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import perceiver_io
from perceiver_io import (
    CrossAttention,
    PerceiverDecoder,
    PerceiverEncoder,
    PerceiverIO,
    ProjectionDecoder,
    SelfAttention,
    record_attention,
)
from perceiver_io.attention_maps import AttentionMaps, block_attention_weights
from perceiver_io.position_encoding import LearnedPositionEncoding
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked

# Inputs and outputs of the small models, at the lengths that `small_inputs` has.
SIZES = {
    "language": (14, 14),
    "imagenet-fourier": (19 * 25, 1),
    "imagenet-learned": (19 * 25, 1),
    "imagenet-conv": (5 * 7, 1),
    "optical-flow": (10 * 14, 10 * 14),
    "video-autoencoding": (12 + 3 * 2 * 3 + 1, 12 + 3 * 8 * 12 + 1),
}


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def small_model(name: str) -> PerceiverIO:
    return randomised(perceiver_io.create_model(name, **SMALL[name]))


def outputs_of(model: PerceiverIO, *inputs: Any) -> list[Tensor]:
    outputs = model(*inputs)
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def all_weights(maps: AttentionMaps) -> list[Tensor]:
    return [maps.encoder, *maps.latents, maps.decoder]


@pytest.mark.parametrize("masked", [False, True])
def test_weights_times_values_are_what_a_cross_attention_yields(masked: bool) -> None:
    block = randomised(CrossAttention(10, 14, num_heads=2, qk_channels=6, v_channels=8, use_query_residual=False))
    queries, inputs = torch.randn(3, 5, 10), torch.randn(3, 9, 14)
    mask = torch.rand(3, 5, 9) > 0.5 if masked else None
    if mask is not None:
        mask[1, 2] = False  # nothing to attend to
    weights = block_attention_weights(block, queries, inputs, mask)
    value = rearrange(block.attention.value(block.input_norm(inputs)), "b rows (h c) -> b h rows c", h=2)
    attended = block.attention.output(rearrange(weights @ value, "b h rows c -> b rows (h c)"))
    expected = attended + block.mlp(block.mlp_norm(attended))
    torch.testing.assert_close(block(queries, inputs, mask), expected, rtol=1e-5, atol=1e-5)
    sums = torch.ones(3, 2, 5)
    if mask is not None:
        sums[1, :, 2] = 0
        assert (weights.masked_select(~mask[:, None]) == 0).all()
    torch.testing.assert_close(weights.sum(-1), sums)


def test_weights_times_values_are_what_a_self_attention_yields() -> None:
    block = randomised(SelfAttention(12, num_heads=3, qk_channels=6, v_channels=9))
    x = torch.randn(2, 5, 12)
    value = rearrange(block.attention.value(block.attention_norm(x)), "b rows (h c) -> b h rows c", h=3)
    attended = rearrange(block_attention_weights(block, x, x) @ value, "b h rows c -> b rows (h c)")
    result = x + block.attention.output(attended)
    torch.testing.assert_close(block(x), result + block.mlp(block.mlp_norm(result)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("accelerated", [False, True])
def test_weights_have_the_shapes_and_sums_that_they_should(name: str, accelerated: bool) -> None:
    model = small_model(name)
    if not accelerated:
        perceiver_io.undo_accelerate(model)
    inputs, config = small_inputs(model), model.config
    num_latent_maps = config.num_blocks * config.num_self_attends_per_block
    with torch.inference_mode(), record_attention(model) as maps:
        model(*inputs)
    with torch.inference_mode(), perceiver_io.plain(model), record_attention(model) as of_plain:
        model(*inputs)
    torch.testing.assert_close(all_weights(maps), all_weights(of_plain), rtol=1e-4, atol=1e-5)

    num_inputs, num_outputs = SIZES[name]
    assert maps.encoder.shape == (2, model.encoder.cross_attend.attention.num_heads, 7, num_inputs)
    assert [weights.shape for weights in maps.latents] == [(2, 3, 7, 7)] * num_latent_maps
    assert maps.decoder.shape == (2, model.decoder.cross_attend.attention.num_heads, num_outputs, 7)
    for weights in all_weights(maps):
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, (sums > 0.5).float())


@pytest.mark.parametrize("inference", [False, True])
def test_results_are_the_same_bit_for_bit(name: str, inference: bool) -> None:
    model = perceiver_io.undo_accelerate(small_model(name))  # hooks make fast paths stand aside, which changes rounding
    inputs = small_inputs(model)
    with torch.inference_mode(inference):
        expected = outputs_of(model, *inputs)
        with record_attention(model):
            recorded = outputs_of(model, *inputs)
        after = outputs_of(model, *inputs)
    for outputs in (recorded, after):
        assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["optical-flow", "video-autoencoding"])
def test_chunks_are_joined(name: str) -> None:
    model = small_model(name)
    inputs = small_inputs(model)
    with torch.inference_mode(), record_attention(model, ["decoder"]) as maps:
        model(*inputs)
        whole = maps.decoder
        model(*inputs, chunk_size=23)
    torch.testing.assert_close(maps.decoder, whole)


def test_what_is_masked_has_no_weight() -> None:
    model = small_model("language")
    tokens, mask = small_inputs(model)
    mask[1] = False
    with torch.inference_mode(), record_attention(model) as maps:
        model(tokens, mask)
    assert (maps.encoder[0, :, :, ~mask[0]] == 0).all()
    assert (maps.encoder[0, :, :, mask[0]] > 0).all()
    assert (maps.encoder[1] == 0).all()
    assert (maps.decoder.sum(-1) > 0).eq(mask[:, None]).all()


def test_each_encoding_starts_anew_and_decoding_goes_on() -> None:
    model = small_model("optical-flow")
    frame1, frame2 = torch.rand(2, 1, 3, 13, 14)
    with torch.inference_mode(), record_attention(model) as maps:
        model(frame1, frame2)  # two tiles
        model(frame1[:, :, 3:], frame2[:, :, 3:])
        last = all_weights(maps)
        model(frame1, frame2)
        torch.testing.assert_close(all_weights(maps), last)
    latents, queries = torch.randn(2, 7, 24), torch.randn(2, 5, model.output_query.num_channels)
    with torch.inference_mode(), record_attention(model, ["decoder"]) as maps:
        for part in queries.split([2, 3], dim=1):
            model.decoder(part, latents=latents)
    assert maps.decoder.shape == (2, 1, 5, 7)


def test_gradient_checkpointing_records_once() -> None:
    model = small_model("imagenet-learned")
    assert isinstance(model.encoder, PerceiverEncoder)
    model.encoder.gradient_checkpointing = True
    (images,) = small_inputs(model)
    model(images).square().sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    with record_attention(model) as maps:
        model(images).square().sum().backward()
    assert len(maps.latents) == 4
    assert not any(weights.requires_grad for weights in all_weights(maps))
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected, rtol=0, atol=0)


def test_nothing_is_left_after_an_error() -> None:
    model = small_model("imagenet-fourier")
    with pytest.raises(ZeroDivisionError), record_attention(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_shared_layers_are_recorded_at_each_call() -> None:
    encoder = PerceiverEncoder(5, num_latents=3, num_latent_channels=8, num_self_attends_per_block=2, num_blocks=2)
    encoder.self_attends[1] = encoder.self_attends[0]
    decoder = PerceiverDecoder(4, 8, output_channels=2)
    model = PerceiverIO(encoder, decoder, output_query=LearnedPositionEncoding(6, 4))
    with record_attention(model, ("latents",)) as maps:
        model(torch.randn(2, 7, 5))
    assert len(maps.latents) == 4


def test_stages_that_are_not_there() -> None:
    model = small_model("language")
    with unchecked(), pytest.raises(ValueError, match="there is no attention of 'encode' to record; stages are 'enc"):
        record_attention(model, ["encode"]).__enter__()  # type: ignore[list-item]
    other = PerceiverIO(nn.Identity(), ProjectionDecoder(8, 3))
    with pytest.raises(ValueError, match=r"'decoder' of a PerceiverDecoder \(here: ProjectionDecoder\)"):
        record_attention(other, ["decoder"]).__enter__()
    with pytest.raises(ValueError, match=r"of a PerceiverEncoder \(here: Identity\)"):
        record_attention(other).__enter__()
    with record_attention(model, ["encoder"]) as maps:
        with pytest.raises(ValueError, match="no attention of the encoder is recorded; name it in `stages`, and run"):
            _ = maps.encoder
        model(*small_inputs(model))
    assert maps.encoder.shape == (2, 2, 7, 14)
    with pytest.raises(ValueError, match="no attention of the latents is recorded"):
        _ = maps.latents
