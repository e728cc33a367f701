"""Attention of so many heads and queries at a time that their scores stay in a CPU's cache."""

import pytest
import torch
from torch.profiler import profile

from perceiver_io.attention import Attention, attend
from perceiver_io.fast import accelerate, products, undo_accelerate


@pytest.mark.parametrize("num_bytes", [100 * 11 * 4, 11 * 600 * 4, 7 * 11 * 600 * 4, products.CACHED_SCORE_BYTES])
def test_attention_in_blocks(num_bytes: int) -> None:
    query, key, value = torch.randn(1, 3, 600, 6), torch.randn(2, 3, 11, 6), torch.randn(2, 3, 11, 10)
    with torch.inference_mode():
        attended = products.attend_heads_by_products(query, key, value, max_score_bytes=num_bytes)
        torch.testing.assert_close(attended, attend(query, key, value))


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
