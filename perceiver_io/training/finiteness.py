"""Whether losses and gradients are numbers: noted at every step, looked at when a GPU is waited for anyway."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class NotFinite(NamedTuple):
    """What was no number.

    Attributes:
        step: the first at which it was.
        micro_batch: whose loss it was; None for the gradient's norm.
        value: NaN or infinite.
    """

    step: int
    micro_batch: int | None
    value: float


class Finiteness:
    """Values of steps that nobody has looked at yet.

    Args:
        most_steps: after so many steps `is_due`; 1 for after each.
    """

    def __init__(self, most_steps: int) -> None:
        self._most_steps = most_steps
        self._noted: list[tuple[int, Tensor]] = []

    def note(self, step: int, losses: list[Tensor], norm: Tensor) -> None:
        """Keeps the losses of a step's micro-batches, and its gradient's norm, where they are."""
        self._noted.append((step, torch.stack([*losses, norm])))

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return len(self._noted) >= self._most_steps

    def look(self, *, gradients_may_overflow: bool = False) -> NotFinite | None:
        """Waits for the device, and tells of the first value that is no number."""
        noted, self._noted = self._noted, []
        if not noted:
            return None
        for (step, _), values in zip(noted, torch.stack([values for _, values in noted]).tolist(), strict=True):
            for micro_batch, value in enumerate(values[:-1]):
                if not math.isfinite(value):
                    return NotFinite(step, micro_batch, value)
            if not (gradients_may_overflow or math.isfinite(values[-1])):
                return NotFinite(step, None, values[-1])
        return None
