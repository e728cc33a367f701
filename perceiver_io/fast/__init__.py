"""Speed as a layer that comes off: the same function by faster ways, which the core knows nothing of.

`accelerate` gives modules of a model, in place, subclasses of their classes with another `forward` (`FastAttention` for
`Attention` and so on). Parameters, state dict, hooks and names stay; copies and pickles are accelerated too. Each fast
way takes part only where `gate` says that it computes what the plain module does; everything else (adapters, hooks, and
most of training, compiling and exporting) falls back to the plain module, call by call.

* `linear`: products by oneDNN on CPUs;
* `attention`: attention of several heads, and the MLP;
* `cross_attention`: a single head's products, associated the cheaper way;
* `generation`: a step of a Perceiver AR in one run; `recorded_steps`: as one CUDA graph;
* `associated`, `products`, `pieces`: the same with gradients, autocasting, compilers and exporters, and on GPUs;
* `blocks`, `input_blocks`: attention whose scores stay in a CPU's cache;
* `online_softmax`: a softmax of more inputs than fit at a time;
* `choice`: which way attention is computed;
* `alignment`: rows in the lengths that a GPU multiplies fastest;
* `compiled_blocks`: `torch.compile` of the layers of self-attention;
* `graphs`: CUDA graphs of a model's calls; `waiting`: what these cannot hold;
* `sleeping`: threads that leave their cores to others while they wait;
* `decoding`: linear layers after the decoder folded into it, and channels that all queries share met once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from perceiver_io.attention import MLP, Attention, CrossAttention
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.fast import compiled_blocks
from perceiver_io.fast.attention import FastAttention, FastMLP
from perceiver_io.fast.cross_attention import FastCrossAttention
from perceiver_io.fast.decoding import PLAIN_CLASSES, accelerate_decoding
from perceiver_io.fast.generation import FastPerceiverAR
from perceiver_io.fast.graphs import Recordings, give_recordings, recordings_of, with_graphs
from perceiver_io.fast.sleeping import sleep_while_waiting
from perceiver_io.perceiver import PerceiverIO

__all__ = ["accelerate", "plain", "sleep_while_waiting", "undo_accelerate", "with_graphs"]

Model = TypeVar("Model", bound=nn.Module)

_FAST: dict[type[nn.Module], type[nn.Module]] = {
    Attention: FastAttention,
    CrossAttention: FastCrossAttention,
    MLP: FastMLP,
    PerceiverAR: FastPerceiverAR,
}
_PLAIN = {fast: plain for plain, fast in _FAST.items()}


def accelerate(
    model: Model, *, dtype: torch.dtype | None = None, compile_blocks: bool = False, max_graphs: int = 8
) -> Model:
    """Makes a model's inference faster, in place, and returns it. `create_model` and `load_model` do so.

    The model computes the same function, to rounding. `undo_accelerate` takes all back, but for the weights' precision.
    On a GPU, its calls in evaluation mode and without gradients are CUDA graphs (`graphs`).

    Args:
        model: a `PerceiverIO`, any module with this library's blocks in it, or one of these. Modules of subclasses with
            a `forward` (or a `decode`) of their own stay as they are.
        dtype: precision of the weights, and so of the inputs, as `load_model` takes it; torch.bfloat16 is the fast one
            where the processor multiplies it. None leaves it as it is.
        compile_blocks: whether `torch.compile` makes one program of the latents' self-attention, which all its layers
            share. The first call of each shape takes a minute; on GPUs norms, activations and residuals are then part
            of their neighbours.
        max_graphs: number of shapes of inputs (and of other arguments) that are recorded, each by the first call with
            it, which takes as long as four. They keep the memory of a call's intermediate values, until the model is
            called in training mode. 0 turns graphs off.

    Raises:
        ValueError: for a dtype that is not a floating one, or a negative number.
    """
    if dtype is not None:
        if not dtype.is_floating_point:
            raise ValueError(f"dtype ({dtype}) must be floating-point, such as torch.bfloat16; None leaves it as it is")
        model.to(dtype)
    for module in model.modules():
        _accelerate_one(module)
        give_recordings(module, Recordings(max_graphs) if max_graphs else None)
    if compile_blocks:
        compiled_blocks.compile_blocks(model)
    return model


def undo_accelerate(model: Model) -> Model:
    """Makes a model plain again, in place, and returns it."""
    for module in model.modules():
        give_recordings(module, None)
        _give_class(module, plain_class(module))
    compiled_blocks.undo_compile_blocks(model)
    return model


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module has when it is plain, which nothing has to be made for."""
    kind = type(module)
    return PLAIN_CLASSES[kind] if kind in PLAIN_CLASSES else _PLAIN.get(kind, kind)


@contextmanager
def plain(model: Model) -> Iterator[Model]:
    """Makes a model plain within the block, for observers that want every module to be called.

    The model is one for all threads: others that use it meanwhile get the same results, more slowly. Blocks that
    overlap in several threads are no error, but the first to end makes the model fast again for all.
    """
    accelerated = [
        (module, recordings_of(module)) for module in model.modules() if plain_class(module) is not type(module)
    ]
    programs = compiled_blocks.programs_of(model)
    try:
        yield undo_accelerate(model)
    finally:
        for module, recordings in accelerated:
            _accelerate_one(module)
            give_recordings(module, recordings)
        compiled_blocks.give_programs(programs)


def _accelerate_one(module: nn.Module) -> None:
    if type(module) in _FAST:
        _give_class(module, _FAST[type(module)])
    elif isinstance(module, PerceiverIO):
        accelerate_decoding(module)


def _give_class(module: nn.Module, kind: type[nn.Module]) -> None:
    if type(module) is not kind:
        object.__setattr__(module, "__class__", kind)
