"""Compiling what a model repeats: its layers of self-attention, which are one program for all that are alike."""

from torch import nn

from perceiver_io.attention import SelfAttention


def compile_blocks(model: nn.Module) -> None:
    """Has `torch.compile` make programs of a model's layers of self-attention, in place.

    They are most of the work. The whole model would be one program of all its layers, each as often as it is applied,
    and take as many times as long to make. Names of parameters stay; call it before `distribute`.
    """
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.compile()
