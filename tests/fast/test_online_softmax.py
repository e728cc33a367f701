"""A softmax block by block: that of all scores at once, also with gradients, and taken only beyond the bound."""

import pytest
import torch
from torch import Tensor

from perceiver_io.fast import pieces
from perceiver_io.fast.online_softmax import OnlineSoftmax, score_unit
from perceiver_io.fast.products import attend_by_products
from perceiver_io.fast.waiting import NothingWaits

QUERIES, INPUTS = 7, 61
ROW_BYTES = INPUTS * 8


@pytest.mark.parametrize("step", [1, 9, INPUTS])
def test_blocks_are_one_softmax(step: int) -> None:
    scores, values = 40 * torch.randn(2, QUERIES, INPUTS).double(), torch.randn(2, INPUTS, 5).double()
    scores[:, 0, :20] = -torch.inf
    attended = OnlineSoftmax(scores, 5)
    for first in range(0, INPUTS, step):
        part = slice(first, first + step)
        attended.add(attended.weights(scores[:, :, part] * score_unit(scores.dtype)) @ values[:, part])
    torch.testing.assert_close(attended.result(), scores.softmax(-1) @ values)
    torch.testing.assert_close(
        attended.log_total() / score_unit(scores.dtype), scores.logsumexp(-1, keepdim=True), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bounded_scores_are_summed_as_they_are(dtype: torch.dtype) -> None:
    scores, values = 10 * torch.randn(40, QUERIES, INPUTS).to(dtype), torch.randn(40, INPUTS, 5).to(dtype)
    expected = scores.double().softmax(-1) @ values.double()
    errors = []
    for is_bounded in (True, False):
        attended = OnlineSoftmax(scores, 5, is_bounded)
        attended.add(attended.weights(scores * score_unit(dtype)) @ values)
        errors.append((attended.result() - expected).abs().mean())
    assert errors[0] <= 1.5 * errors[1]


def test_rows_of_nothing_are_zeros() -> None:
    attended = OnlineSoftmax(torch.ones(1, 2, 3), 5)
    attended.add(attended.weights(torch.full((1, 2, 3), -torch.inf)) @ torch.ones(1, 3, 5))
    assert not attended.result().any()


def operands(mask: bool, bias: bool, value: bool) -> dict[str, Tensor | None]:
    return {
        "query": torch.randn(3, QUERIES, 6).double(),
        "key": torch.randn(3, INPUTS, 6).double(),
        "value": torch.randn(3, INPUTS, 4).double() if value else None,
        "score_bias": torch.randn(1, 1, INPUTS).double() if bias else None,
        "mask": (torch.rand(3, QUERIES, INPUTS) > 0.5) & (torch.arange(3) != 1)[:, None, None] if mask else None,
    }


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("value", [False, True])
def test_few_queries_at_a_time_go_through_blocks_of_inputs(
    mask: bool, bias: bool, value: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = operands(mask, bias, value)
    blocks: list[int] = []
    in_blocks = pieces._in_blocks

    def counted(*arguments: Tensor) -> Tensor:
        blocks.append(1)
        return in_blocks(*arguments)

    monkeypatch.setattr(pieces, "_in_blocks", counted)
    for max_bytes in (ROW_BYTES, 2 * ROW_BYTES, QUERIES * ROW_BYTES, 10**9):
        results = []
        for bound in (10**9, max_bytes):
            tensors = {
                name: x.clone().requires_grad_() if x is not None and x.is_floating_point() else x
                for name, x in given.items()
            }
            with NothingWaits():
                output = attend_by_products(**tensors, max_score_bytes=bound)
            wanted = [x for x in tensors.values() if x is not None and x.requires_grad]
            results.append((output, *torch.autograd.grad(output.sin().sum(), wanted)))
        for ours, theirs in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(blocks) == 2  # not where all queries fit


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_at_once(dtype: torch.dtype) -> None:
    exact = {name: x for name, x in operands(mask=False, bias=False, value=True).items() if x is not None}
    expected = attend_by_products(**exact)
    errors = [
        (attend_by_products(**{name: x.to(dtype) for name, x in exact.items()}, max_score_bytes=bound) - expected).abs()
        for bound in (10**9, INPUTS * 2)
    ]
    assert errors[1].mean() <= 1.2 * errors[0].mean()


def test_cpus_keep_to_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_in_blocks", None)
    given = operands(mask=True, bias=True, value=True)
    torch.testing.assert_close(attend_by_products(**given, max_score_bytes=ROW_BYTES), attend_by_products(**given))
