"""Adam as Perceiver AR trains with it: all gradients together are first scaled down to a norm."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from perceiver_io.training.gradients import clip_gradients, cut_gradients


class ClippedAdam(torch.optim.Adam):
    """Adam on gradients that are scaled down where their norm, over all parameters, is above `max_norm`.

    Source: the reference's `optax.clip_by_global_norm`, then `optax.scale_by_adam`. With a summed loss the norm always
    is above, so that each step counts alike.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        max_norm: of the gradients; None for any.
        fused: see `torch.optim.Adam`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_norm: float | None = 1.0,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=fused)
        self.max_norm = max_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates the parameters; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.max_norm is not None:
            clip_gradients(self, self.max_norm)
        super().step()
        return loss


def clip_before_steps(optimizer: Optimizer, max_norm: float) -> None:
    """Makes an optimiser scale gradients down, before each of its steps, where the norm of all is above `max_norm`."""
    optimizer.register_step_pre_hook(lambda optimizer, *_: clip_gradients(optimizer, max_norm))


def cut_before_steps(optimizer: Optimizer, max_value: float) -> None:
    """Makes an optimiser cut each element of the gradients to ±`max_value` before each of its steps."""
    optimizer.register_step_pre_hook(lambda optimizer, *_: cut_gradients(optimizer, max_value))
