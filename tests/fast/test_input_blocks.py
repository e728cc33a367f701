"""Few queries attending to blocks of many inputs: exact, with the right gradients, and little kept for them."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_io import CrossAttention, accelerate
from perceiver_io.fast import associated, input_blocks, pieces
from perceiver_io.fast.input_blocks import attend_to_inputs
from tests.fast.test_products import kept_bytes
from tests.randomised import randomised


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 256 inputs, the least."""
    monkeypatch.setattr(pieces, "_BLOCK_BYTES", {"cpu": 1})


def variable(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("projects", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_derivatives(projects: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_blocks, "row_blocks", lambda *_: [slice(0, 4), slice(4, 8)])
    query, inputs = variable(1, 2, 2 if projects else 3), variable(2, 7, 3)
    weight = variable(5, 3) if projects else None
    mask = torch.rand(2, 1, 7) > 0.5 if masked else None

    def attended(query: Tensor, inputs: Tensor, weight: Tensor | None) -> Tensor:
        return attend_to_inputs(query, inputs, weight, mask, 1e-5)

    arguments = (query, inputs, weight)
    assert torch.autograd.gradcheck(attended, arguments, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(attended, arguments)


@pytest.mark.parametrize("sizes", [(2, 3), (14, 14), (80, 90)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float64, 1.0), (torch.float64, 300.0), (torch.float32, 1.0)])
@pytest.mark.parametrize("trained_inputs", [True, False])
def test_training(sizes: tuple[int, int], masked: bool, dtype: torch.dtype, scale: float, trained_inputs: bool) -> None:
    """Scores far beyond what exponentials hold are among them."""
    torch.manual_seed(0)
    block = randomised(CrossAttention(10, 14, num_heads=1, qk_channels=sizes[0], v_channels=sizes[1])).double().train()
    with torch.no_grad():
        block.attention.query.weight.mul_(scale)
    fast = accelerate(copy.deepcopy(block)).to(dtype)
    queries, inputs = torch.randn(1, 5, 10), torch.randn(3, 700, 14)
    mask = torch.rand(3, 1, 700) > 0.5 if masked else None
    if mask is not None:
        mask[1] = False  # nothing to attend to
    results = []
    for either, precision in ((block, torch.float64), (fast, dtype)):
        rows = queries.to(precision, copy=True).requires_grad_()
        seen = inputs.to(precision, copy=True).requires_grad_(trained_inputs)
        output = either(rows, seen, mask)
        sought = [rows, *either.parameters(), *([seen] if trained_inputs else [])]
        results.append([output, *torch.autograd.grad((output * output.sin()).sum(), sought)])
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    for expected, found in zip(*results, strict=True):
        deviation = max(1.0, float(expected.detach().std(correction=0)))
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * deviation)


@pytest.mark.parametrize("projects", [True, False])
def test_queries_may_depend_on_inputs(projects: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do from the second cross-attention on; what is differentiated again must not count that twice."""
    monkeypatch.setattr(input_blocks, "row_blocks", lambda *_: [slice(0, 4), slice(4, 8)])
    weight = variable(5, 3) if projects else None

    def attended(inputs: Tensor) -> Tensor:
        query = 3 * inputs[:, :2, : 2 if projects else 3].tanh()
        return attend_to_inputs(query, inputs, weight, None, 1e-5)

    inputs = variable(2, 7, 3)
    assert torch.autograd.gradcheck(attended, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(attended, inputs)
    once, again = (
        torch.autograd.grad(attended(inputs).sin().sum(), inputs, create_graph=create)[0] for create in (False, True)
    )
    torch.testing.assert_close(once, again)


@pytest.mark.parametrize("widths", [2, 80, None])
def test_gradients_are_as_precise_where_autocasting_is_on(widths: int | None) -> None:
    inputs = torch.randn(3, 700, 14, requires_grad=True)
    query = torch.randn(1, 5, widths or 14, requires_grad=True)
    weight = None if widths is None else torch.randn(widths + 3, 14, requires_grad=True)
    results = []
    for is_on in (True, False):
        output = attend_to_inputs(query, inputs, weight, None, 1e-5).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            wanted = [query, inputs] if weight is None else [query, inputs, weight]
            results.append(torch.autograd.grad(output, wanted))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("gradients", [True, False])
def test_many_examples_of_few_inputs_are_one_product(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(input_blocks, "attend_to_inputs", None)
    block = accelerate(CrossAttention(32, 40, num_heads=1))
    with torch.set_grad_enabled(gradients):
        block(torch.randn(1, 8, 32), torch.randn(128, 64, 40))


@pytest.mark.parametrize("widths", [4, 100])
def test_training_keeps_the_inputs_alone(widths: int) -> None:
    block = CrossAttention(10, 50, num_heads=1, qk_channels=widths).train()
    queries, inputs = torch.randn(1, 6, 10), torch.randn(2, 4000, 50)
    module = _WithQueries(accelerate(block), queries)
    assert kept_bytes(module, inputs) <= inputs.nbytes + 40_000


class _WithQueries(torch.nn.Module):
    def __init__(self, block: CrossAttention, queries: Tensor) -> None:
        super().__init__()
        self.block, self.queries = block, queries

    def forward(self, inputs: Tensor) -> Tensor:
        return self.block(self.queries, inputs)


def test_others_attend_as_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocasting, in half precision where it is trained, and in compiled programs."""
    monkeypatch.setattr(input_blocks, "attend_to_inputs", None)
    block = accelerate(CrossAttention(10, 14, num_heads=1, qk_channels=2, v_channels=3)).train()
    wide = accelerate(CrossAttention(10, 14, num_heads=1)).train()
    queries, inputs = torch.randn(1, 5, 10), torch.randn(3, 700, 14)
    for either in (block, wide):
        with torch.autocast("cpu", torch.bfloat16):
            either(queries, inputs).sum().backward()
        copy.deepcopy(either).bfloat16()(queries.bfloat16(), inputs.bfloat16()).sum().backward()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not input_blocks.serves(queries, inputs)


def test_scores_that_fit_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(associated, "gather", None)
    block = accelerate(CrossAttention(10, 14, num_heads=1, qk_channels=2, v_channels=3)).train()
    block(torch.randn(1, 5, 10), torch.randn(3, 700, 14)).sum().backward()


def test_the_softmax_is_of_the_normalised_inputs() -> None:
    query, inputs, weight = torch.randn(2, 3, 4), 5 + 3 * torch.randn(2, 600, 6), torch.randn(11, 6)
    keys, values = (F.layer_norm(inputs, (6,)) @ weight.T).split([4, 7], -1)
    expected = (query @ keys.mT).softmax(-1) @ values
    torch.testing.assert_close(attend_to_inputs(query, inputs, weight, None, 1e-5), expected)
