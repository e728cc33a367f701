"""Attention: masks, defaults, dropout and errors. That it computes what the reference does is in tests/parity."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_io import MLP, Attention, CrossAttention, SelfAttention
from perceiver_io.attention import Activation, attend
from tests.unchecked import unchecked


@given(seed=st.integers(0, 2**16), keep=st.integers(1, 6))
def test_masked_inputs_have_no_influence(seed: int, keep: int) -> None:
    torch.manual_seed(seed)
    module = Attention(6, 10, num_heads=2).eval()
    queries, inputs = torch.randn(2, 3, 6), torch.randn(2, 7, 10)
    mask = torch.zeros(2, 1, 7, dtype=torch.bool)
    mask[:, :, torch.randperm(7)[:keep]] = True
    changed = torch.where(mask.transpose(1, 2), inputs, torch.randn(2, 7, 10) * 100)
    torch.testing.assert_close(module(queries, inputs, mask), module(queries, changed, mask))
    kept = inputs[:, mask[0, 0]]
    torch.testing.assert_close(module(queries, inputs, mask), module(queries, kept))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_without_valid_inputs_is_exactly_zero(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(2, 3, 5, c, dtype=dtype) for c in (4, 4, 7))
    mask = torch.ones(2, 5, 5, dtype=torch.bool)
    mask[0, 1] = False
    attended = attend(query, key, value, mask)
    assert attended[0, :, 1].eq(0).all()
    assert attended[0, :, 0].ne(0).all()
    assert attended.isfinite().all()


def test_a_batch_of_one_stands_for_all() -> None:
    module = CrossAttention(6, 10, num_heads=2).eval()
    queries, inputs = torch.randn(1, 3, 6), torch.randn(4, 7, 10)
    torch.testing.assert_close(module(queries, inputs), module(queries.expand(4, -1, -1), inputs))


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, (12, 12, 12)),
        ({"qk_channels": 8}, (8, 8, 8)),
        ({"qk_channels": 8, "v_channels": 20}, (8, 20, 20)),
        ({"qk_channels": 8, "v_channels": 20, "output_channels": 5}, (8, 20, 5)),
    ],
)
def test_default_widths(options: dict[str, int], widths: tuple[int, int, int]) -> None:
    module = Attention(12, 9, num_heads=4, **options)
    assert (module.query.out_features, module.value.out_features, module.output.out_features) == widths


def test_shape_for_attn_chooses_the_width() -> None:
    assert CrossAttention(6, 10, num_heads=2, shape_for_attn="q").attention.query.out_features == 6
    assert CrossAttention(6, 10, num_heads=2, shape_for_attn="kv").attention.query.out_features == 10
    with unchecked(), pytest.raises(ValueError, match=r"shape_for_attn \('v'\) must be 'q' or 'kv'"):
        CrossAttention(6, 10, shape_for_attn="v")  # type: ignore[arg-type]


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"num_heads \(3\) must divide qk_channels \(16\)"):
        Attention(16, 16, num_heads=3)
    with pytest.raises(ValueError, match=r"num_heads \(4\) must divide v_channels \(6\)"):
        Attention(16, 16, num_heads=4, v_channels=6)


@pytest.mark.parametrize(
    "module",
    [
        MLP(8, dropout_prob=0.5),
        SelfAttention(8, num_heads=2, dropout_prob=0.5),
        SelfAttention(8, num_heads=2, attention_dropout_prob=0.5),
        CrossAttention(8, 8, num_heads=2, dropout_prob=0.5),
        CrossAttention(8, 8, num_heads=2, attention_dropout_prob=0.5),
    ],
)
def test_dropout_acts_in_training_only(module: torch.nn.Module) -> None:
    x = torch.randn(2, 5, 8)
    inputs = (x, x) if isinstance(module, CrossAttention) else (x,)
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))
    module.eval()
    assert torch.equal(module(*inputs), module(*inputs))


def test_gelu_is_the_tanh_approximation() -> None:
    module = MLP(1, widening_factor=1)
    with torch.no_grad():
        for layer in (module.hidden, module.output):
            layer.weight.fill_(1.0)
    x = torch.tensor([[2.0]])
    inner = torch.tensor(2 / torch.pi).sqrt() * (x + 0.044715 * x**3)
    torch.testing.assert_close(module(x), 0.5 * x * (1 + inner.tanh()))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("gelu", lambda h: h * 0.5 * (1 + torch.erf(h / 2**0.5))),
        ("relu", lambda h: h.clamp_min(0)),
        ("squared_relu", lambda h: h.clamp_min(0) ** 2),
        ("geglu", lambda h: h[:, :6] * h[:, 6:] * 0.5 * (1 + torch.erf(h[:, 6:] / 2**0.5))),
    ],
)
def test_other_activations(activation: Activation, expected: Callable[[Tensor], Tensor]) -> None:
    module = MLP(3, widening_factor=2, activation=activation)
    x = torch.randn(5, 3)
    torch.testing.assert_close(module(x), module.output(expected(module.hidden(x))))
    block = SelfAttention(8, num_heads=2, activation=activation)
    assert block.mlp.activation == activation


def test_an_activation_that_there_is_not() -> None:
    with unchecked(), pytest.raises(ValueError, match=r"activation \('swish'\) must be one of 'gelu_tanh', 'gelu'"):
        MLP(3, activation="swish")  # type: ignore[arg-type]


def test_layers_without_biases() -> None:
    for block in (
        SelfAttention(8, num_heads=2, qkv_bias=False, output_bias=False, mlp_bias=False),
        CrossAttention(8, 6, num_heads=2, qkv_bias=False, output_bias=False, mlp_bias=False),
    ):
        biases = [name for name, _ in block.named_parameters() if name.endswith("bias")]
        assert biases
        assert all("norm" in name for name in biases)
    attention = Attention(8, 6, num_heads=2, qkv_bias=False)
    assert attention.query.bias is attention.key.bias is attention.value.bias is None
    assert attention.output.bias is not None


def test_masks_that_broadcast() -> None:
    query, key, value = (torch.randn(2, 3, rows, 4) for rows in (5, 7, 7))
    for shape in ((1, 1, 7), (2, 1, 7), (2, 5, 1), (1, 5, 1), (2, 5, 7), (1, 1, 1)):
        mask = torch.rand(shape) > 0.4
        whole = mask.expand(2, 5, 7)
        torch.testing.assert_close(attend(query, key, value, mask), attend(query, key, value, whole))


def test_rows_of_nothing_have_no_gradient_and_no_nan() -> None:
    tensors = [torch.randn(2, 3, rows, 4, requires_grad=True) for rows in (5, 7, 7)]
    mask = torch.rand(2, 5, 7) > 0.5
    mask[0] = False
    attend(*tensors, mask).square().sum().backward()
    for tensor in tensors:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad[0].eq(0).all()
