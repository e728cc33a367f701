"""Products by oneDNN, and affine maps."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from perceiver_io.fast import linear
from perceiver_io.fast.linear import AffineMap, apply_linear, batched_product, gated_product, product, row_product


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what reading the flags says on any machine
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_the_same_with_and_without_onednn(activation: str, bias: bool) -> None:
    x, weight = torch.randn(3, 5, 7).transpose(0, 1), torch.randn(7, 4).T
    shift = torch.randn(4) if bias else None
    expected = F.linear(x, weight, shift)
    if activation == "gelu":
        expected = F.gelu(expected, approximate="tanh")
    with torch.inference_mode():
        torch.testing.assert_close(product(x, weight, shift, activation), expected)  # type: ignore[arg-type]
        with torch.backends.mkldnn.flags(enabled=False):
            torch.testing.assert_close(product(x, weight, shift, activation), expected)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_bfloat16_is_rounded_once(activation: str) -> None:
    x, weight, shift = torch.randn(40, 30).bfloat16(), torch.randn(20, 30).bfloat16(), torch.randn(20).bfloat16()
    exact = F.linear(x.double(), weight.double(), shift.double())
    if activation == "gelu":
        exact = F.gelu(exact, approximate="tanh")
    errors = {}
    for enabled in (True, False):
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=enabled):
            result = product(x, weight, shift, activation)  # type: ignore[arg-type]
        assert result.dtype == torch.bfloat16
        errors[enabled] = (result.double() - exact).square().mean().sqrt().item()
    assert errors[True] <= 1.01 * errors[False] < 0.02 * exact.std().item()


@pytest.mark.parametrize("outputs", [1, 5, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_a_single_row_must_be_as_wide_as_the_weight(outputs: int, bias: bool) -> None:
    shift = torch.randn(outputs) if bias else None
    unchecked = inspect.unwrap(row_product)  # tests look at shapes on the way in
    for row in (torch.randn(1, 8), torch.randn(2, 6)[:1]):
        with pytest.raises(RuntimeError, match="size"):
            unchecked(row, torch.randn(outputs, 7), shift)


@pytest.mark.parametrize("outputs", [1, 5, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_a_single_row(outputs: int, bias: bool) -> None:
    row, shift = torch.randn(1, 5, 7)[:, -1:], torch.randn(outputs) if bias else None
    with torch.inference_mode():
        for weight in (torch.randn(outputs, 7), torch.randn(7, outputs).T):
            for activation in ("none", "gelu"):
                expected = F.linear(row, weight, shift)
                expected = F.gelu(expected, approximate="tanh") if activation == "gelu" else expected
                torch.testing.assert_close(product(row, weight, shift, activation), expected)  # type: ignore[arg-type]
        weight, shift = torch.randn(2 * outputs, 7), torch.randn(2 * outputs) if bias else None
        values, gates = F.linear(row, weight, shift).chunk(2, dim=-1)
        torch.testing.assert_close(gated_product(row, weight, shift), values * F.gelu(gates))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_product_is_the_same_with_and_without_onednn(bias: bool) -> None:
    x, weight = torch.randn(3, 5, 7).transpose(0, 1), torch.randn(7, 8).T
    shift = torch.randn(8) if bias else None
    values, gates = F.linear(x, weight, shift).chunk(2, dim=-1)
    with torch.inference_mode():
        torch.testing.assert_close(gated_product(x, weight, shift), values * F.gelu(gates))
        with torch.backends.mkldnn.flags(enabled=False):
            torch.testing.assert_close(gated_product(x, weight, shift), values * F.gelu(gates))


@pytest.mark.parametrize(("rows", "weights"), [(1, 1), (1, 3), (3, 1), (3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_batched_products(rows: int, weights: int, bias: bool) -> None:
    x, factors = torch.randn(rows, 5, 7), torch.randn(weights, 4, 7)
    shift = torch.randn(weights, 1, 4) if bias else None
    expected = torch.einsum(
        "bri,boi->bro", x.expand(max(rows, weights), -1, -1), factors.expand(max(rows, weights), -1, -1)
    )
    with torch.inference_mode():
        torch.testing.assert_close(batched_product(x, factors, shift), expected if shift is None else expected + shift)


def test_affine_maps_compose() -> None:
    first, second = AffineMap(torch.randn(4, 6), torch.randn(4)), AffineMap(torch.randn(3, 4), torch.randn(3))
    x = torch.randn(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(second.after(first)(x), second(first(x)))
        unbiased = second.after(AffineMap(first.weight, None))
        torch.testing.assert_close(unbiased(x), second(F.linear(x, first.weight)))


def test_a_layer_that_is_more_than_its_weight_is_called() -> None:
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(apply_linear(layer, x), layer(x))
        layer.register_forward_hook(lambda module, args, output: 2 * output)
        torch.testing.assert_close(apply_linear(layer, x), 2 * F.linear(x, layer.weight, layer.bias))
        torch.testing.assert_close(apply_linear(nn.Identity(), x), x)


def test_cublas_applies_the_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an operation whose GELU is the exact one here, and the tanh approximation there."""
    monkeypatch.setattr(linear, "_onednn_serves", lambda *_: False)
    monkeypatch.setattr(linear, "_cublas_applies_gelu", lambda *_: True)
    weight, bias = torch.randn(4, 7), torch.randn(4)
    for x in (torch.randn(3, 5, 7).transpose(0, 1), torch.randn(1, 5, 7).expand(3, -1, -1), torch.randn(2, 7)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = product(x, weight, bias, "gelu")
        assert counter.get_total_flops() == 2 * x.numel() * 4
        torch.testing.assert_close(result, F.gelu(F.linear(x, weight, bias)))
