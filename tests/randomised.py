"""Weights of which every one matters: biases and norms too."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def randomised(module: Module) -> Module:
    """Draws all parameters of a module anew and puts it in evaluation mode."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.3)
    return module.eval()
