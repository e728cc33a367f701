"""Compiling what a model repeats: its layers of self-attention, which are one program for all that are alike."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import nn

from perceiver_io.attention import SelfAttention

_numbers = count()
_CALL = "_compiled_call_impl"  # where `Module.compile` puts it, which copies and pickles leave out


def compile_blocks(model: nn.Module) -> None:
    """Has `torch.compile` make programs of a model's layers of self-attention, in place.

    They are most of the work. The whole model would be one program of all its layers, each as often as it is applied,
    and take as many times as long to make. Names of parameters stay.
    """
    program = _new_program()
    give_programs({layer: partial(program, layer) for layer in model.modules() if isinstance(layer, SelfAttention)})


def programs_of(model: nn.Module) -> dict[nn.Module, Callable[..., Any]]:
    """What the compiled ones of a model's layers of self-attention are called by."""
    layers = (layer for layer in model.modules() if isinstance(layer, SelfAttention))
    return {layer: vars(layer)[_CALL] for layer in layers if _CALL in vars(layer)}


def give_programs(programs: Mapping[nn.Module, Callable[..., Any]]) -> None:
    """Has layers called by programs."""
    for layer, program in programs.items():
        vars(layer)[_CALL] = program


def undo_compile_blocks(model: nn.Module) -> None:
    """Has a model's layers of self-attention run as they are, in place."""
    for layer in programs_of(model):
        del vars(layer)[_CALL]


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module._call_impl(*args, **kwargs)


def _new_program() -> Callable[..., Any]:
    """`torch.compile` of a layer's call, for one model.

    PyTorch makes eight programs of a piece of code, and from then on leaves it as it is, whichever model it is called
    for; and sizes that differ between models would be any to it. So each model has a copy of the code, under a name of
    its own.
    """
    code = _call.__code__.replace(co_name=f"{_call.__name__}_{next(_numbers)}")
    return torch.compile(FunctionType(code, _call.__globals__, code.co_name, closure=_call.__closure__))
