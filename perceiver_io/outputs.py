"""What every use of a model asks of it: where it is, and whether what it says can be true."""

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for one without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_finite(output: Tensor) -> Tensor:
    """Passes a model's output on.

    Raises:
        ValueError: the output is not finite.
    """
    if not output.isfinite().all():
        raise ValueError("the model's output is not finite; its checkpoint is damaged, or its training failed")
    return output
