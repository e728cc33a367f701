"""Gradients of many parameters at once: their norm, and what bounds them.

PyTorch's functions for lists spare a GPU the launches of each tensor; nothing here waits for values.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

# Where an optimiser has the norm of its gradients while `known_norm` says what it is.
_KNOWN = "_known_gradient_norm"


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """The gradients of an optimiser's parameters, of those that have one."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def norms(tensors: Iterable[Tensor]) -> Float[Tensor, " tensors"]:
    """Maps tensors to the Euclidean norm of each, also where they are sharded over processes."""
    stacked = torch.stack(torch._foreach_norm(list(tensors)))
    return stacked.full_tensor() if isinstance(stacked, DTensor) else stacked


def global_norm(tensors: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Maps tensors to the Euclidean norm of all their elements, also where they are sharded over processes."""
    return torch.linalg.vector_norm(norms(tensors))


@contextmanager
def known_norm(optimizer: Optimizer, norm: Tensor) -> Iterator[None]:
    """Tells an optimiser, within the block, the norm of all its gradients, which `clip_gradients` need not compute."""
    vars(optimizer)[_KNOWN] = norm
    try:
        yield
    finally:
        vars(optimizer).pop(_KNOWN, None)


@torch.no_grad()
def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """Scales an optimiser's gradients down, in place, where the norm of all of them is above `max_norm`."""
    gradients = gradients_of(optimizer)
    if gradients:
        norm = vars(optimizer).pop(_KNOWN, None)
        scale = (max_norm / (global_norm(gradients) if norm is None else norm)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scale)


@torch.no_grad()
def cut_gradients(optimizer: Optimizer, max_value: float) -> None:
    """Cuts each element of an optimiser's gradients to ±`max_value`, in place."""
    gradients = gradients_of(optimizer)
    if gradients:
        vars(optimizer).pop(_KNOWN, None)
        torch._foreach_clamp_min_(gradients, -max_value)
        torch._foreach_clamp_max_(gradients, max_value)
