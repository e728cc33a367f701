"""Rows in lengths that tensor cores take, forced on the CPU: the same results, and no product of many other rows."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import perceiver_io
from perceiver_io import accelerate, undo_accelerate
from perceiver_io.attention import attend
from perceiver_io.fast import alignment, decoding
from perceiver_io.fast.products import attend_by_products, attend_heads_by_products
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs

pytestmark = pytest.mark.usefixtures("as_on_cuda")
ATEN = torch.ops.aten


@pytest.fixture
def _in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has rows of float64 aligned, which shows that nothing but rounding is different."""
    monkeypatch.setattr(alignment, "_DTYPES", {torch.float64})


def tensors(outputs: Any) -> list[Tensor]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


@pytest.mark.usefixtures("_in_double")
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("batch", [1, 3])
def test_models_compute_the_same(name: str, batch: int) -> None:
    model = randomised(undo_accelerate(perceiver_io.create_model(name, **SMALL[name]))).double()
    fast = accelerate(copy.deepcopy(model))
    inputs = [x.double() if x.is_floating_point() else x for x in small_inputs(model, batch)]
    with torch.inference_mode():
        for ours, theirs in zip(tensors(fast(*inputs)), tensors(model(*inputs)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    for either in (model.train(), fast.train()):
        sum(output.square().mean() for output in tensors(either(*inputs))).backward()
    for ours, theirs in zip(fast.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("_in_double")
@pytest.mark.parametrize("options", [{}, {"activation": "geglu"}, {"activation": "gelu"}, {"use_query_residual": True}])
def test_decoders_of_all_kinds(options: dict[str, Any]) -> None:
    decoder = perceiver_io.PerceiverDecoder(13, 24, output_channels=5, num_heads=1, **options)
    decoder = randomised(decoder).double()
    query, latents, mask = torch.randn(1, 300, 13).double(), torch.randn(2, 7, 24).double(), torch.rand(2, 300) > 0.2
    with torch.inference_mode():
        expected = decoder(query, latents, mask)
        torch.testing.assert_close(accelerate(decoder)(query, latents, mask), expected)


@pytest.mark.usefixtures("_in_double")
@pytest.mark.parametrize("bound", [1, 300, 2**31])
@pytest.mark.parametrize("own_values", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("inputs", "channels"), [(5, 2), (8, 2), (5, 8), (8, 8)])
def test_derivatives(
    bound: int,
    own_values: bool,
    has_bias: bool,
    masked: bool,
    inputs: int,
    channels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are those of rows as they are, which tests/fast/test_products.py checks."""

    def variable(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    query, key = variable(1, 3, channels), variable(2, inputs, channels)
    value = variable(2, inputs, 3) if own_values else None
    bias = variable(2, 1, inputs) if has_bias else None
    mask = torch.rand(2, 1, inputs) > 0.5 if masked else None
    results = []
    for dtypes in ({torch.float64}, set()):
        monkeypatch.setattr(alignment, "_DTYPES", dtypes)
        attended = attend_by_products(query, key, value, bias, mask, bound)
        given = [x for x in (query, key, value, bias) if x is not None]
        results.append([attended, *torch.autograd.grad(attended.sin().sum(), given)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_inputs_that_are_added_are_attended_to_by_nobody(dtype: torch.dtype, scale: float) -> None:
    query, key, value = torch.randn(2, 2, 9, 13) * scale, torch.randn(2, 2, 11, 13), torch.randn(2, 2, 11, 5)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype) + 100
    for bound in (2 * 11, 2**31):  # blocks of inputs, and all at once
        attended = attend_heads_by_products(query, key, value, max_score_bytes=bound)
        torch.testing.assert_close(attended.float() - 100, attend(query, key, value).float() - 100, rtol=0, atol=1.0)


def test_rows_for_a_whole_batch_are_stored_once() -> None:
    rows = torch.randn(1, 9, 13, dtype=torch.bfloat16).expand(4, -1, -1)
    for longer in (
        alignment.lengthened(rows, 3),
        alignment.with_ones(rows, 16),
        alignment.with_biases(rows, None),
    ):
        assert longer.shape[0] == 4
        assert longer.stride(0) == 0
        assert longer.shape[2] == 16
        torch.testing.assert_close(longer[:, :9, :13], rows)


class AlignedProducts(TorchDispatchMode):
    """Checks that matrices of many rows are aligned where they are multiplied."""

    only_looks_on = True

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (ATEN.mm, ATEN.bmm, ATEN.addmm, ATEN.baddbmm):
            for matrix in (*args[-2:], result):
                if max(matrix.shape[-2:]) >= self.many:
                    long = [stride for stride in matrix.stride() if stride > 1]
                    assert all(stride % 8 == 0 for stride in long), (func, matrix.shape, matrix.stride())
                    self.seen += 1
        return result


@pytest.mark.parametrize("gradients", [False, True])
def test_few_queries_of_many_inputs(gradients: bool) -> None:
    block = accelerate(randomised(perceiver_io.CrossAttention(24, 33, num_heads=1)).bfloat16())
    with torch.set_grad_enabled(gradients), AlignedProducts(600) as mode:
        output = block(torch.randn(2, 16, 24).bfloat16(), torch.randn(2, 601, 33).bfloat16())
        if gradients:
            output.sum().backward()
    assert mode.seen >= 4


def test_blocks_of_inputs() -> None:
    query, key = torch.randn(3, 6, 24).bfloat16(), torch.randn(3, 601, 24).bfloat16()
    with torch.no_grad(), AlignedProducts(24) as mode:
        attended = attend_by_products(query, key, max_score_bytes=37 * 3 * 6 * 4)  # of 37 inputs
    assert mode.seen >= 2 * 3 * 601 // 37
    torch.testing.assert_close(attended, attend_by_products(query, key), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["optical-flow", "video-autoencoding"])
def test_many_queries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, look_up = AlignedProducts(60), decoding.look_up

    def checked(*arguments: Any) -> Tensor:
        with mode:
            return look_up(*arguments)

    monkeypatch.setattr(decoding, "look_up", checked)
    model = randomised(perceiver_io.create_model(name, **SMALL[name])).bfloat16().eval()
    with torch.no_grad():  # in inference mode, modes see operations that are made of others as they are
        model(*(x.bfloat16() if x.is_floating_point() else x for x in small_inputs(model)))
    assert mode.seen >= 4
