"""All that a run needs to go on where it was: model, optimiser, scale of the gradients, and the step.

The learning rate, the data and every random number are functions of the step and the seed, so the step says them all.

The last two states are kept, each with a SHA-256 of its content. So there is a whole one whenever a process or the
machine stops, and one that is damaged later is found out, and the one before it takes its place.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.amp import GradScaler
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.optim import Optimizer

from perceiver_io.training.averaging import AveragedWeights
from perceiver_io.training.distributed import world
from perceiver_io.training.fingerprints import same
from perceiver_io.training.sharded_state import ShardWriter, check_shards, load_shards
from perceiver_io.training.state_file import first_line, previous, read_state_file, write_state_file

# Sharded tensors are gathered on the CPU of the first process.
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)

__all__ = ["DATA", "full_state_dict", "load_state", "previous", "save_state"]

# What is compared up to rounding.
DATA = "data"


def full_state_dict(model: nn.Module, average: AveragedWeights | None = None) -> dict[str, Any]:
    """Maps a model, distributed or not, to its state dict as a single process would have it.

    All processes must call it. Where the model is sharded only the first one's result is whole.

    Args:
        average: of the model's weights, to have in place of these.
    """
    if average is None:
        return get_model_state_dict(model, options=_FULL)
    with average.in_place():
        averaged: dict[str, Any] = get_model_state_dict(model, options=_FULL)
        return {name: value.clone() for name, value in averaged.items()}


def save_state(
    path: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: GradScaler,
    run: Mapping[str, Any],
    average: AveragedWeights | None = None,
    shards: ShardWriter | None = None,
) -> None:
    """Writes the state after `step` updates, at once or not at all. All processes must call it; the first one writes.

    The state that is there is kept as `previous`.

    Args:
        run: all that defines the run, checked by `load_state`; strings, numbers, and lists and dicts of them.
        average: of the model's weights, if one is kept.
        shards: if each process shall write its own part of the tensors, in the background; the state counts when
            `shards` has finished.

    Raises:
        OSError: if it cannot be written, for instance to a full disk, with the file's name.
    """
    about = {"step": step, "run": dict(run), "scaler": scaler.state_dict()}
    if shards is not None:
        shards.start(path, about, model, optimizer, average)
        return
    model_state, optimizer_state = get_state_dict(model, optimizer, options=_FULL)
    average_state = {} if average is None else full_state_dict(model, average)
    if world().rank == 0:
        state = {
            **about,
            "model": model_state,
            "average": average_state,
            "optimizer": optimizer_state,
        }
        write_state_file(path, state)
    if world().size > 1:
        dist.barrier()


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: GradScaler,
    run: Mapping[str, Any],
    average: AveragedWeights | None = None,
) -> int:
    """Restores what `save_state` wrote and returns the number of updates done; without a file, 0.

    If the state is damaged or missing, the previous one is restored and takes its place, which a warning says. All
    processes must call it, and each reads the file.

    Raises:
        ValueError: if the only states are damaged, or one is of a run that was defined otherwise.
    """
    damages = []
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            damages.append(f"{candidate} is missing")
            continue
        try:
            state = read_state_file(candidate)
            check_shards(candidate, state)
        except (ValueError, OSError) as error:
            damages.append(f"{candidate} is damaged ({error})")
            continue
        _check_same_run(candidate, state["run"], run)
        step = _restore(state, candidate, model, optimizer, scaler, average)
        if world().size > 1:
            dist.barrier()  # until all have read it
        if damages and world().rank == 0:
            warnings.warn(f"{damages[0]}; the run goes on from the state before it, of step {step}", stacklevel=2)
            candidate.replace(path)
        return step
    if all(damage.endswith("missing") for damage in damages):
        return 0
    raise ValueError(f"{' and '.join(damages)}; remove the damaged to start the run again")


# Settings of PyTorch's optimisers of how a step is computed, whose result they do not change.
_WAYS = ("fused", "foreach", "capturable", "differentiable")


def _restore(
    state: Mapping[str, Any],
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: GradScaler,
    average: AveragedWeights | None,
) -> int:
    try:
        for group, own in zip(state["optimizer"]["param_groups"], optimizer.param_groups, strict=True):
            group.update({key: own[key] for key in _WAYS if key in own})  # where counts of steps lie depends on it
        if "shards" in state:
            load_shards(path, state, model, optimizer, average)
            scaler.load_state_dict(state["scaler"])
            return int(state["step"])
        if average is not None:
            set_model_state_dict(model, state["average"], options=StateDictOptions(full_state_dict=True))
            average.restart()
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not fit the model and its optimizer ({first_line(error)})") from error
    return int(state["step"])


def _check_same_run(path: Path, written: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    for name in sorted(written.keys() | run.keys(), key=lambda name: (name == DATA, name)):
        before, now = (_without_ways(of.get(name)) for of in (written, run))
        if same(before, now) if name == DATA else before == now:
            continue
        difference = _difference(name, before, now)
        raise ValueError(
            f"{path} is of another run: {difference}; ask for the same again to go on with it, or choose another "
            "directory"
        )


def _without_ways(value: Any) -> Any:
    """Leaves out of an optimiser's settings how steps are computed, which depends on the device."""
    if isinstance(value, list) and all(isinstance(group, dict) for group in value):
        return [{key: setting for key, setting in group.items() if key not in _WAYS} for group in value]
    return value


def _difference(name: str, before: Any, now: Any) -> str:
    if name == DATA:
        return "its data are not those that are given now"
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return f"its {name} of {key} is {before.get(key)!r}, not {now.get(key)!r}"
    return f"its {name} is {before!r}, not {now!r}"
