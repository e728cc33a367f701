"""The outputs that a training step decodes: some drawn at random, or those that are masked."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_points(
    batch_size: int, available: int, number: int, generator: torch.Generator
) -> Int[Tensor, "{batch_size} _"]:
    """Draws flat indices of points for each example, with replacement; all points once, if there are no more."""
    if available <= number:
        return torch.arange(available).expand(batch_size, -1)
    return torch.randint(available, (batch_size, number), generator=generator)


def masked_points(masked: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch points"]:
    """Maps masks to the positions of masked bytes, in order; rows with fewer end in positions of others."""
    most = int(masked.sum(1).max())
    return masked.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
