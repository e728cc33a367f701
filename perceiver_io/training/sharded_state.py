"""States of sharded models: each process writes the part of the tensors that it has, while training goes on.

The parts lie in a folder beside the state's file, which names them, and which is written when all of them are. They are
read by any number of processes, whatever the number that wrote them (PyTorch's distributed checkpoints).
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

from perceiver_io.training.averaging import AveragedWeights
from perceiver_io.training.distributed import world
from perceiver_io.training.state_file import digest, named, previous, read_state_file, write_state_file

# Names of folders begin with it, and end with the step.
_FOLDER = "shards-"


class ShardWriter:
    """Writes states in the background, one at a time; all processes must make one, and call its methods together."""

    def __init__(self) -> None:
        # What is said in the background must not mix with what training says.
        self._group = dist.new_group(backend="gloo")
        self._writing: Future[Any] | None = None

    def start(
        self,
        path: Path,
        about: Mapping[str, Any],
        model: nn.Module,
        optimizer: Optimizer,
        average: AveragedWeights | None,
    ) -> None:
        """Copies the tensors and begins to write them; the state before must have been finished.

        Args:
            path: of the state's file.
            about: the rest of the state, with its step.
            model: sharded over the processes.
            optimizer: of the model.
            average: of the model's weights, if one is kept.
        """
        tensors, rest = _state(model, optimizer, average)
        self._path, self._about = path, {**about, "optimizer": rest}
        self._folder = path.parent / f"{_FOLDER}{about['step']}"
        with named(self._folder):
            if world().rank == 0:
                shutil.rmtree(self._folder, ignore_errors=True)
            dist.barrier(self._group)
            copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            with _without_warnings():
                self._writing = cast(
                    Future[Any], async_save(copies, checkpoint_id=self._folder, process_group=self._group)
                )

    def is_done(self) -> bool:
        """Whether this process has written its part of a state that is not finished yet."""
        return self._writing is not None and self._writing.done()

    def is_busy(self) -> bool:
        """Whether there is a state that is not finished yet; all processes agree."""
        return self._writing is not None

    def finish(self) -> None:
        """Waits until all processes have written their parts, and makes the state the last one.

        Raises:
            OSError: if a part or the file cannot be written.
        """
        if self._writing is None:
            return
        with named(self._folder):
            self._writing.result()
            self._writing = None
            own = {file.name: digest(file) for file in _share(sorted(self._folder.iterdir()))}
        parts: list[dict[str, str]] = [{} for _ in range(world().size)]
        dist.all_gather_object(parts, own, self._group)
        if world().rank == 0:
            files = {name: value for part in parts for name, value in part.items()}
            write_state_file(self._path, {**self._about, "shards": {"folder": self._folder.name, "files": files}})
            _remove_unused(self._path)
        dist.barrier(self._group)


def check_shards(path: Path, state: Mapping[str, Any]) -> None:
    """Checks that the parts that a state names are there and are what was written; of several processes each a share.

    Raises:
        ValueError: if they are not, in all processes.
    """
    if "shards" not in state:
        return
    folder, files = path.parent / state["shards"]["folder"], state["shards"]["files"]
    damage = ""
    for name in _share(sorted(files)):
        file = folder / name
        if not file.is_file():
            damage = f"{file} is missing"
        elif digest(file) != files[name]:
            damage = f"the content of {file} is not the one that its SHA-256 is of"
    damages = [damage]
    if world().size > 1:
        damages = [""] * world().size
        dist.all_gather_object(damages, damage)
    if any(damages):
        raise ValueError(next(filter(None, damages)))


def load_shards(
    path: Path, state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, average: AveragedWeights | None
) -> None:
    """Restores model, optimiser and average from the parts that a state names.

    Raises:
        ValueError, RuntimeError, KeyError: if they do not fit.
    """
    tensors, _ = _state(model, optimizer, average)
    with _without_warnings():
        try:
            load(tensors, checkpoint_id=path.parent / state["shards"]["folder"])
        except CheckpointException as error:
            raise ValueError(next(iter(error.failures.values()))[0]) from error
    model_state: Any = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    parameters: dict[str, dict[str, Any]] = {name: dict(rest) for name, rest in state["optimizer"]["state"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            parameter, _, entry = name.removeprefix("optimizer.").rpartition(".")
            parameters.setdefault(parameter, {})[entry] = tensor
    groups = state["optimizer"]["param_groups"]
    optimizer_state: Any = {"state": parameters, "param_groups": groups}
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)


def _state(
    model: nn.Module, optimizer: Optimizer, average: AveragedWeights | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors, each with a name, and the optimiser's state without its tensors."""
    with _without_warnings():
        both: Any = get_state_dict(model, optimizer)
    model_state, optimizer_state = both
    tensors = {f"model.{name}": tensor for name, tensor in model_state.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.values.items()}
    rest: dict[str, dict[str, Any]] = {}
    for parameter, entries in optimizer_state["state"].items():
        for entry, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{parameter}.{entry}"] = value
            else:
                rest.setdefault(parameter, {})[entry] = value
    return tensors, {"state": rest, "param_groups": optimizer_state["param_groups"]}


def _share(items: list[Any]) -> list[Any]:
    """Those that are this process's to look at."""
    return items[world().rank :: world().size]


def _remove_unused(path: Path) -> None:
    """Removes folders of states that are neither the last nor the one before."""
    used = set()
    for file in (path, previous(path)):
        if file.is_file():
            used.add(read_state_file(file).get("shards", {}).get("folder"))
    for folder in path.parent.glob(f"{_FOLDER}*"):
        if folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without those of PyTorch's own parts to one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
