"""What happens on a GPU, forced on the CPU: the same results, operands that its kernels take, nothing waited for."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import perceiver_io
from perceiver_io import CrossAttention, accelerate, undo_accelerate
from perceiver_io.fast.waiting import NothingWaits
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs

pytestmark = pytest.mark.usefixtures("as_on_cuda")
ATEN = torch.ops.aten


class CountedAndNothingWaits(NothingWaits):
    """Counts all operations besides."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket] += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def pair(name: str) -> tuple[Any, Any]:
    """A plain model and an accelerated one with the same weights."""
    model = randomised(undo_accelerate(perceiver_io.create_model(name, **SMALL[name])))
    return model, accelerate(copy.deepcopy(model))


def tensors(outputs: Any) -> list[Tensor]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


@pytest.mark.parametrize("batch", [1, 3])
def test_results_are_those_of_the_plain_model(name: str, batch: int) -> None:
    model, fast = (either.double() for either in pair(name))
    inputs = [x.double() if x.is_floating_point() else x for x in small_inputs(model, batch)]
    with torch.inference_mode():
        for ours, theirs in zip(tensors(fast(*inputs)), tensors(model(*inputs)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_gradients_are_those_of_the_plain_model(name: str) -> None:
    model, fast = (either.double().train() for either in pair(name))
    inputs = [x.double() if x.is_floating_point() else x for x in small_inputs(model)]
    for either in (model, fast):
        sum(output.square().mean() for output in tensors(either(*inputs))).backward()
    for ours, theirs in zip(fast.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9)


def test_inference_waits_for_nothing(name: str) -> None:
    for model in pair(name):
        inputs, points = small_inputs(model), torch.tensor([1, 4])
        with torch.inference_mode(), CountedAndNothingWaits() as mode:
            model(*inputs)
            if name == "language":
                model(*inputs, points=points)
        assert mode.calls


def test_nothing_of_a_tiled_flow_comes_from_the_host() -> None:
    model = pair("optical-flow")[0].to("meta")
    height, width = model.config.image_size
    frames = torch.empty(2, 1, 3, height + 5, width + 3, device="meta")
    with torch.inference_mode(), NothingWaits():
        assert model(*frames).shape == (1, 2, height + 5, width + 3)


class StoredInFull(TorchFunctionMode):
    """Checks what torch's fused attention is given, and keeps the masks."""

    only_looks_on = True

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value, mask = (*args, None)[:4]
            for x in (query, key, value):
                assert x.stride(-1) == 1
                assert all(stride or size == 1 for stride, size in zip(x.stride(), x.shape, strict=True))
                assert len(x) == len(query)
            if mask is not None:
                assert mask.is_contiguous()
                assert mask.shape[-2:] == (query.shape[-2], key.shape[-2])
            self.masks.append(mask)
        return func(*args, **(kwargs or {}))


def test_operands_of_fused_kernels_are_stored_in_full(name: str) -> None:
    for model in pair(name):
        inputs = small_inputs(model, batch=3)
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients), StoredInFull() as mode:
                model(*inputs)
            assert mode.masks
            assert any(mask is not None for mask in mode.masks) == (name == "language")


@pytest.mark.parametrize(("queries", "inputs"), [(5, 400), (400, 5)])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_batch_is_one_product(queries: int, inputs: int, gradients: bool) -> None:
    block = accelerate(randomised(CrossAttention(6, 8, num_heads=1, qk_channels=10, v_channels=12)))
    products = []
    for batch in (2, 5):
        with torch.set_grad_enabled(gradients), CountedAndNothingWaits() as mode:
            block(torch.randn(1, queries, 6), torch.randn(batch, inputs, 8))
        products.append({op: n for op, n in mode.calls.items() if op in (ATEN.bmm, ATEN.baddbmm, ATEN.mm, ATEN.addmm)})
    assert products[0] == products[1]
    assert sum(products[0].get(op, 0) for op in (ATEN.bmm, ATEN.baddbmm)) >= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision(name: str, dtype: torch.dtype, autocast: bool) -> None:
    model = accelerate(perceiver_io.create_model(name, **SMALL[name])).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs = small_inputs(model)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            expected = tensors(
                copy.deepcopy(model).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
            )
            if autocast:
                with torch.autocast("cpu", dtype):
                    given = tensors(model(*inputs))
            else:
                lower = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
                given = tensors(copy.deepcopy(model).to(dtype)(*lower))
        for ours, theirs in zip(given, expected, strict=True):
            # Twice what tests/test_precision.py measured, in standard deviations of the output.
            assert (ours.double() - theirs).abs().max() <= {torch.bfloat16: 0.3, torch.float16: 0.05}[
                dtype
            ] * theirs.std()
