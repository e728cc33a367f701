"""The cost of a step of training before it is taken: operations, and bytes that are kept for the backward pass.

The model runs without values (PyTorch's fake tensors), so a model of any size takes a second and no memory. What the
objective makes of its outputs is computed, on outputs of zeros, since objectives choose by value what to decode.
"""

import copy
import weakref
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten
from torch.utils.data import default_collate
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.settings import Batch, Dataset, FinishedOnDevice, Objective

# PyTorch's table has the GPU's kernels of attention, but not these.
_COUNTS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda *tensors, **_: sdpa_flop_count(*(t.shape for t in tensors[:3]))
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *tensors, **_: sdpa_backward_flop_count(*(t.shape for t in tensors[:4]))
    ),
}


class StepCost(NamedTuple):
    """The cost of the forward and the backward pass of a micro-batch.

    Attributes:
        flops: multiplications and additions in products and convolutions, each of the two counted; what gradient
            checkpointing computes again counts again.
        activation_bytes: what lives between the two passes, besides weights and gradients.
        peak_bytes: the most that lives at any time, likewise.
    """

    flops: int
    activation_bytes: int
    peak_bytes: int


def step_cost(
    model: nn.Module,
    objective: Objective,
    batch: Batch,
    *,
    autocast: torch.dtype | None = None,
    checkpointing: bool = True,
) -> StepCost:
    """Maps a model, its objective and a micro-batch to the cost of a step.

    Args:
        model: in the state in which it is trained; it stays as it is.
        objective: see `Trainer`.
        batch: on the model's device; on a CPU, kernels of the CPU are planned for, which keep what a GPU's keep.
        autocast: type of the products; None for that of the weights.
        checkpointing: whether modules with `gradient_checkpointing` do it; if not, the work is that of the model alone.
    """
    device = next(model.parameters()).device
    meter = Meter()
    twin = _Twin(model, meter, checkpointing)
    with torch.autocast(device.type, autocast, enabled=autocast is not None), meter:
        loss = objective(twin, batch, torch.Generator().manual_seed(0))["loss"]
    activation_bytes = meter.live
    with meter:
        loss.backward()
    del loss
    twin.backward()
    return StepCost(meter.flops, activation_bytes, meter.peak)


def optimizer_bytes(model: nn.Module, make_optimizer: Callable[[nn.Module], Optimizer]) -> int:
    """Counts the bytes of an optimiser's state after its first update, on a copy of the model without values."""
    twin = copy.deepcopy(
        model, {id(t): _like(t, torch.empty_like(t, device="meta")) for t in chain(model.parameters(), model.buffers())}
    )
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    optimizer = make_optimizer(twin)
    optimizer.step()
    return sum(t.nbytes for t in tree_leaves(dict(optimizer.state)) if isinstance(t, Tensor) and t.ndim)


def first_examples(dataset: Dataset, number: int) -> Batch:
    """A batch of the first examples of a data set (see `Trainer`); of one that has fewer, several times over."""
    draws = [Draw(index % len(dataset), derived_seed(index)) for index in range(number)]
    examples = [dataset[draw] for draw in draws]
    if isinstance(dataset, FinishedOnDevice):
        return dataset.finish(dataset.collate(examples), torch.device("cpu"))
    batch: Batch = default_collate(examples)
    return batch


def _like(tensor: Tensor, twin: Tensor) -> Tensor:
    return nn.Parameter(twin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


class _Twin(nn.Module):
    """Stands in for a model: runs it without values, and returns zeros.

    A copy of it that has gradients already, as in all micro-batches of an update but the first.
    """

    def __init__(self, model: nn.Module, meter: "Meter", checkpointing: bool) -> None:
        super().__init__()
        self.config = getattr(model, "config", None)
        self._mode = FakeTensorMode()
        self._meter = meter
        self._outputs: list[Tensor] = []
        self._zeros: list[Tensor] = []
        with self._mode:
            tensors = chain(model.parameters(), model.buffers())
            memo = {id(t): _like(t, torch.empty(t.shape, dtype=t.dtype, device=t.device)) for t in tensors}
            self._model = copy.deepcopy(model, memo)
            for module in self._model.modules():
                if not checkpointing and hasattr(module, "gradient_checkpointing"):
                    setattr(module, "gradient_checkpointing", False)  # noqa: B010  # mypy: of no known type
            for parameter in self._model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model on the shapes of what it is given."""
        with _disable_current_modes(), self._mode:
            args, kwargs = tree_map_only(Tensor, self._mode.from_tensor, (args, kwargs))
            with self._meter:
                outputs = self._model(*args, **kwargs)
        leaves, structure = tree_flatten(outputs)
        zeros = [torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device, requires_grad=True) for leaf in leaves]
        self._outputs += leaves
        self._zeros += zeros
        return tree_unflatten(zeros, structure)

    def backward(self) -> None:
        """Runs the backward pass, after that of what was made of the zeros."""
        reached = [
            (output, zeros) for output, zeros in zip(self._outputs, self._zeros, strict=True) if zeros.grad is not None
        ]
        with self._mode, self._meter:
            gradients = [torch.empty_like(output) for output, _ in reached]
            outputs = [output for output, _ in reached]
            self._outputs, self._zeros, reached = [], [], []
            torch.autograd.backward(outputs, gradients)


class Meter(TorchDispatchMode):
    """Counts what is computed inside, and the bytes of the tensors that were made inside and still are there.

    PyTorch's `FlopCounterMode` keeps tensors alive that are computed again for gradient checkpointing.

    Attributes:
        flops: multiplications and additions in products and convolutions, each of the two counted.
        live: bytes that are there now.
        peak: the most that were there at a time.
    """

    only_looks_on = True  # at the order of products that training really has (`fast.gate`)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if count := _COUNTS.get(func._overloadpacket):
            self.flops += count(*args, **kwargs, out_val=result)
        # Views, and what is computed in place, have the memory of another tensor.
        if not any(returned.alias_info for returned in func._schema.returns):
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
