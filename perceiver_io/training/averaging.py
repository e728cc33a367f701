"""Exponential moving average of weights, which often does better than the last of them (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a model's weights and batch statistics.

    At a step t, counted from 0, the average keeps min(decay, (1 + t) / (10 + t)) of itself, so that the first weights
    are soon forgotten. Source: TensorFlow's `ExponentialMovingAverage`.

    Args:
        model: as it is trained, sharded or not.
        decay: share of the average that a step keeps; 0.9999 is usual for runs of 100,000 steps.

    Attributes:
        values: the average, by the names of the model's state dict; of what is tied, by the first of its names.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = model
        self.values = {name: tensor.detach().clone() for name, tensor in self._weights()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after an update.

        Args:
            step: number of the update, from 0.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        names, tensors = zip(*self._weights(), strict=True)
        torch._foreach_lerp_([self.values[name] for name in names], tensors, 1 - decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Takes the weights as they are for the average."""
        for name, tensor in self._weights():
            self.values[name].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the average for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._weights():
            value = self.values[name]
            kept = tensor.clone()
            tensor.copy_(value)
            value.copy_(kept)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what is averaged; a tensor that is tied, and so has several names in the state dict, but once."""
        seen = set()
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point() and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor
