"""Products of a single head, associated the cheaper way, against the plain formulation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from perceiver_io import CrossAttention, accelerate
from perceiver_io.fast import associated, pieces
from perceiver_io.fast.associated import gather
from perceiver_io.fast.cross_attention import (
    drop_unattended,
    gathers_cheaply,
    look_up,
    looks_up_cheaply,
    pad,
)
from perceiver_io.fast.linear import AffineMap
from tests.randomised import randomised


def block_of(residual: bool = False, qkv_bias: bool = True) -> CrossAttention:
    return randomised(
        CrossAttention(10, 14, num_heads=1, qk_channels=6, v_channels=8, use_query_residual=residual, qkv_bias=qkv_bias)
    )


@given(seed=st.integers(0, 2**16), masked=st.booleans(), queries=st.sampled_from([1, 3]), bias=st.booleans())
def test_gather(seed: int, masked: bool, queries: int, bias: bool) -> None:
    torch.manual_seed(seed)
    block = block_of(qkv_bias=bias)
    latents, inputs = torch.randn(queries, 5, 10), torch.randn(3, 600, 14)
    mask = torch.rand(3, 1, 600) > 0.7 if masked else None
    if mask is not None:
        mask[1] = False  # nothing to attend to
    expected = block.attention(block.query_norm(latents), block.input_norm(inputs), mask)
    with torch.inference_mode():
        for projects in (False, True):
            found = gather(block, latents, inputs, mask, projects)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@given(
    seed=st.integers(0, 2**16),
    masked=st.booleans(),
    residual=st.booleans(),
    shared=st.sampled_from([0, 1, 4]),
    outputs=st.sampled_from([None, 2, 30]),
    queries=st.sampled_from([1, 3]),
    bias=st.booleans(),
    fast_mlp=st.booleans(),
)
def test_look_up(
    seed: int,
    masked: bool,
    residual: bool,
    shared: int,
    outputs: int | None,
    queries: int,
    bias: bool,
    fast_mlp: bool,
) -> None:
    torch.manual_seed(seed)
    block = block_of(residual, bias)
    rows, latents = torch.randn(queries, 700, 10 - shared), torch.randn(3, 7, 14)
    padding = torch.randn(shared) if shared else None
    mask = torch.rand(3, 700, 1) > 0.3 if masked else None
    readout = None if outputs is None else AffineMap(torch.randn(outputs, 10), torch.randn(outputs))
    plain = block(pad(rows, padding), latents, mask)
    expected = plain if readout is None else F.linear(plain, *readout)
    with torch.inference_mode():
        accelerate(block.mlp if fast_mlp else block)
        result = look_up(block, rows, latents, mask, padding, readout)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


def test_blocks_smaller_than_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_BLOCK_BYTES", {"cpu": 1})  # 256 rows, the least
    block = block_of()
    few, many = torch.randn(1, 5, 10), torch.randn(1, 5, 14)
    inputs, queries = torch.randn(1, 1000, 14), torch.randn(1, 1000, 10)
    for _ in range(2):
        with torch.inference_mode():
            expected = block.attention(block.query_norm(few), block.input_norm(inputs))
            for projects in (False, True):
                found = gather(block, few, inputs, projects=projects)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            block.attention.query.weight.mul_(1000)  # scores whose exponentials would overflow
    block = block_of()
    expected = block(queries, many)
    with torch.inference_mode():
        torch.testing.assert_close(look_up(block, queries, many), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1, 30, 1000])
def test_half_precision_is_as_exact_however_large_the_scores(dtype: torch.dtype, scale: int) -> None:
    block = block_of().to(dtype)
    few, inputs = torch.randn(1, 50, 10).to(dtype), torch.randn(8, 1000, 14).to(dtype)
    with torch.no_grad():
        block.attention.query.weight.mul_(scale)
        exact = block_of().double()
        exact.load_state_dict(block.state_dict())
        expected = exact.attention(exact.query_norm(few.double()), exact.input_norm(inputs.double()))
        plain = block.attention(block.query_norm(few), block.input_norm(inputs))
    with torch.inference_mode():
        found = gather(block, few, inputs)
    assert (found - expected).abs().mean() <= 2 * (plain - expected).abs().mean()


def test_paths_are_chosen_by_their_cost() -> None:
    few, many = torch.randn(1, 4, 10), torch.randn(1, 4000, 14)
    block = randomised(CrossAttention(10, 14, num_heads=1))
    latents = torch.randn(1, 4, 14)
    assert gathers_cheaply(block, few, many, None)
    assert not gathers_cheaply(block, many[..., :10], latents, None)
    assert looks_up_cheaply(block, many[..., :10], latents, None)
    assert not looks_up_cheaply(block, few, many, None)
    several = CrossAttention(10, 14, num_heads=2).eval()
    assert not gathers_cheaply(several, few, many, None)
    assert not looks_up_cheaply(several, many[..., :10], latents, None)


def test_keys_and_values_of_narrow_heads_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    block = accelerate(randomised(CrossAttention(10, 14, num_heads=1, qk_channels=2, v_channels=3)).eval())
    few, inputs, mask = torch.randn(2, 6, 10), torch.randn(2, 700, 14), torch.rand(2, 1, 700) > 0.5
    mask[1] = False
    called = []
    whole = associated.gather
    monkeypatch.setattr(associated, "gather", lambda *a, **k: called.append(k) or whole(*a, **k))
    for masked in (None, mask):
        with torch.inference_mode():
            expected = block(few, inputs, masked)
            assert not called  # the scores fit in the cache
            with monkeypatch.context() as context:
                context.setattr(pieces, "_BLOCK_BYTES", {"cpu": 1})
                found = block(few, inputs, masked)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert called == [{"projects": True}]
        called.clear()


@given(seed=st.integers(0, 2**16))
def test_unattended_inputs_are_dropped(seed: int) -> None:
    torch.manual_seed(seed)
    inputs, mask = torch.randn(3, 9, 4), torch.rand(3, 1, 9) > 0.8
    with torch.inference_mode():
        kept, kept_mask = drop_unattended(inputs, mask)
        block = randomised(CrossAttention(6, 4, num_heads=2))
        queries = torch.randn(1, 5, 6)
        torch.testing.assert_close(block(queries, inputs, mask), block(queries, kept, kept_mask))
    if mask.any():
        assert kept.shape[1] == int(mask.any(0).sum())
