"""The encoder's rounds: order, sharing, names and errors. What Perceiver IO's rounds compute is in tests/parity."""

import pytest
import torch

from perceiver_io import (
    CrossAttention,
    PerceiverEncoder,
    Round,
    SelfAttention,
    perceiver_io_rounds,
    perceiver_rounds,
)
from perceiver_io.position_encoding import LearnedPositionEncoding
from tests.randomised import randomised

SIZES = {
    "num_latents": 5,
    "num_latent_channels": 12,
    "num_self_attends_per_block": 2,
    "num_cross_attend_heads": 1,
    "num_self_attend_heads": 3,
}


def test_rounds_of_perceiver_io() -> None:
    assert perceiver_io_rounds(3) == (Round(0, 0), Round(None, 0), Round(None, 0))
    by_number, by_rounds = (
        PerceiverEncoder(7, num_blocks=3, **SIZES),
        PerceiverEncoder(7, rounds=perceiver_io_rounds(3), **SIZES),
    )
    by_rounds.load_state_dict(by_number.state_dict(), strict=True)
    tokens = torch.randn(2, 9, 7)
    assert torch.equal(by_number(tokens), by_rounds(tokens))
    assert len(PerceiverEncoder(7, **SIZES).rounds) == 8


def test_rounds_of_the_original_perceiver() -> None:
    assert perceiver_rounds(4) == (Round(0, 0), Round(1, 0), Round(1, 0), Round(1, 0))
    assert perceiver_rounds(3, share_cross_attends=False, share_blocks=False) == (Round(0, 0), Round(1, 1), Round(2, 2))
    encoder = randomised(PerceiverEncoder(7, rounds=perceiver_rounds(3), **SIZES))
    tokens, mask = torch.randn(2, 9, 7), torch.rand(2, 9) > 0.3
    first, second, block = encoder.cross_attend, encoder.further_cross_attends[0], encoder.self_attends
    latents = encoder.latents()
    for cross_attend in (first, second, second):
        latents = cross_attend(latents, tokens, mask[:, None])
        for layer in block:
            latents = layer(latents)
    torch.testing.assert_close(encoder(tokens, mask), latents)


def test_layers_that_are_shared_are_there_once() -> None:
    shared = PerceiverEncoder(7, rounds=perceiver_rounds(4), **SIZES)
    assert (len(shared.cross_attends), len(shared.blocks)) == (2, 1)
    own = PerceiverEncoder(7, rounds=perceiver_rounds(4, share_cross_attends=False, share_blocks=False), **SIZES)
    assert (len(own.cross_attends), len(own.blocks)) == (4, 4)
    names = set(own.state_dict())
    assert {"cross_attend.query_norm.weight", "further_cross_attends.2.query_norm.weight"} <= names
    assert {"self_attends.1.mlp.hidden.weight", "further_self_attends.2.1.mlp.hidden.weight"} <= names


def test_an_encoder_of_layers_that_are_there_already() -> None:
    cross_attends = [CrossAttention(12, 7, num_heads=1), CrossAttention(12, 7, num_heads=1, qk_channels=4)]
    blocks = [[SelfAttention(12, num_heads=2)], [SelfAttention(12, num_heads=3), SelfAttention(12, num_heads=4)]]
    rounds = (Round(0, 1), Round(None, 0), Round(1, 1))
    encoder = PerceiverEncoder.of_blocks(LearnedPositionEncoding(5, 12), cross_attends, blocks, rounds)
    tokens = torch.randn(2, 9, 7)
    latents = cross_attends[0](encoder.latents(), tokens)
    for layer in (*blocks[1], *blocks[0]):
        latents = layer(latents)
    latents = cross_attends[1](latents, tokens)
    for layer in blocks[1]:
        latents = layer(latents)
    torch.testing.assert_close(encoder(tokens), latents)
    with pytest.raises(ValueError, match="must use each of the 1 cross-attentions and 2 blocks, and no others"):
        PerceiverEncoder.of_blocks(LearnedPositionEncoding(5, 12), cross_attends[:1], blocks, rounds)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    encoder, tokens = PerceiverEncoder(7, rounds=perceiver_rounds(3), **SIZES), torch.randn(2, 9, 7)
    encoder(tokens).square().sum().backward()
    expected = [parameter.grad for parameter in encoder.parameters()]
    encoder.zero_grad()
    encoder.gradient_checkpointing = True
    encoder(tokens).square().sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in encoder.parameters()], expected)


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ((), "must begin with one that attends to the tokens"),
        ((Round(None, 0),), "must begin with one that attends to the tokens"),
        ((Round(0, 0), Round(2, 0)), r"cross-attention indices \[0, 2\]; they must be 0, 1, … without gaps"),
        ((Round(0, 1),), r"block indices \[1\]; they must be 0, 1, … without gaps"),
    ],
)
def test_impossible_rounds(rounds: tuple[Round, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverEncoder(7, rounds=rounds, **SIZES)


def test_rounds_are_said_once() -> None:
    with pytest.raises(ValueError, match=r"num_blocks \(2\) and rounds say the same thing; give one of the two"):
        PerceiverEncoder(7, num_blocks=2, rounds=perceiver_io_rounds(2), **SIZES)
