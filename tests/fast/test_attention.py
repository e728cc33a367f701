"""Attention of so many heads and queries at a time that their scores stay in a CPU's cache."""

import math

import pytest
import torch
from torch.profiler import profile

from perceiver_io.attention import Attention, attend
from perceiver_io.fast import accelerate, blocks, undo_accelerate

MASKS = {
    "none": None,
    "inputs": torch.arange(11) < torch.tensor([7, 11])[:, None, None],
    "inputs of all": torch.arange(11)[None, None] != 3,
    "queries": torch.arange(600)[None, :, None] % 3 > 0,
    "both": torch.arange(600)[:, None] * torch.tensor([5, 7])[:, None, None] % 11 > torch.arange(11),
    "nothing": torch.zeros(2, 1, 1, dtype=torch.bool),
}


@pytest.mark.parametrize("num_scores", [1, 11, 100 * 11, 4 * 200 * 11, blocks._SCORES])
@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_attention_in_blocks(num_scores: int, mask: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_SCORES", num_scores)
    monkeypatch.setattr(blocks, "_MOST_SCORES", num_scores)
    query, key, value = torch.randn(1, 3, 600, 6), torch.randn(2, 3, 11, 6), torch.randn(2, 3, 11, 10)
    with torch.inference_mode():
        expected = attend(query, key, value, mask)
        torch.testing.assert_close(blocks.attend_in_blocks(query, key, value, mask), expected)
        if mask is not None:
            nothing = ~mask.any(-1).expand(2, 600)[:, None, :, None].expand_as(expected)
            assert (blocks.attend_in_blocks(query, key, value, mask)[nothing] == 0).all()


@pytest.mark.parametrize("score", [100.0, -100.0, 1000.0, -1000.0])
def test_blocks_of_scores_beyond_what_can_be_exponentiated(score: float) -> None:
    query, key, value = torch.randn(1, 2, 600, 16), torch.randn(1, 2, 300, 16), torch.randn(1, 2, 300, 16)
    query[..., 0], key[..., 0] = 4.0, 0.0
    key[:, 1, :, 0] = score  # of one head, and all of its inputs
    expected = attend(query.double(), key.double(), value.double())
    attended = blocks.attend_in_blocks(query, key, value)
    torch.testing.assert_close(attended.double(), expected, rtol=0, atol=1e-6 * abs(score))
    torch.testing.assert_close(attended[:, 0].double(), expected[:, 0], rtol=0, atol=2e-6)
    half = blocks.attend_in_blocks(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert half.isfinite().all() and half.abs().max() <= value.abs().max() * 1.02  # means still, of rounded scores


def test_blocks_mind_no_default_device() -> None:
    query, key, value = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 11, 6), torch.randn(2, 3, 11, 10)
    mask = MASKS["inputs"]
    with torch.inference_mode():
        expected = attend(query, key, value, mask)
        with torch.device("meta"):
            torch.testing.assert_close(blocks.attend_in_blocks(query, key, value, mask), expected)


@pytest.mark.parametrize(
    ("heads", "queries", "inputs", "block"),
    [
        (8, 512, 512, (8, 256)),
        (8, 784, 784, (4, 196)),
        (16, 2048, 2048, (2, 256)),
        (8, 256, 50_176, (1, 256)),
        (8, 2048, 182_528, (1, 90)),
        (8, 1, 2048, (8, 1)),
        (8, 300, 2_000_000, (1, 8)),
    ],
)
def test_scores_of_several_heads_stay_in_the_cache(
    heads: int, queries: int, inputs: int, block: tuple[int, int]
) -> None:
    assert blocks._block(heads, queries, inputs) == block
    assert inputs * math.prod(block) <= (blocks._SCORES if block[0] > 1 else blocks._MOST_SCORES)


@pytest.mark.parametrize("casts", [False, True])
def test_training_without_a_mask_looks_for_no_rows_of_nothing(casts: bool) -> None:
    attention = accelerate(Attention(12, 10, num_heads=2, qk_channels=4, v_channels=6))
    queries, inputs = torch.randn(3, 5, 12, requires_grad=True), torch.randn(3, 7, 10, requires_grad=True)
    wanted = [queries, inputs, *attention.parameters()]

    def gradients() -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=casts):
            attended = attention(queries, inputs)
        return torch.autograd.grad(attended.float().square().sum(), wanted)

    with profile() as operations:
        fast = gradients()
    assert not {"aten::isneginf", "aten::_safe_softmax"} & {event.key for event in operations.key_averages()}
    undo_accelerate(attention)
    plain = gradients()
    largest = max(gradient.abs().max().item() for gradient in plain)
    for ours, theirs in zip(fast, plain, strict=True):  # bfloat16 rounds in another order
        torch.testing.assert_close(ours, theirs, rtol=0, atol=(2e-2 if casts else 1e-6) * largest)
