"""Settings of a run, and the contracts of what the trainer is given."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from perceiver_io.training.distributed import Strategy
from perceiver_io.training.sampling import Draw

Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]]
Evaluation = Callable[[nn.Module], dict[str, float]]
Precision = Literal["float32", "bfloat16", "float16"]

_CPU = torch.device("cpu")
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@runtime_checkable
class Dataset(Protocol):
    """Data to learn from: examples as functions of a `Draw`, so that a resumed run sees the same ones.

    It may have a method `fingerprint` that tells it from other data; see `fingerprints`.
    """

    def __len__(self) -> int:
        """The number of examples in an epoch."""

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to one example; whatever is random about it comes from the draw's seed."""


@runtime_checkable
class FinishedOnDevice(Protocol):
    """A data set whose batches are finished where they are learned from, such as augmented on the graphics card."""

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """Joins examples, in the process that loads them."""

    def finish(self, batch: Batch, device: torch.device) -> Batch:
        """Maps what `collate` made to the batch, on a device."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Settings of a run. Numbers of steps count updates of the weights.

    Args:
        num_steps: length of the run.
        batch_size: examples that one process handles at once.
        accumulation: how many such micro-batches make an update.
        precision: of the products, by autocast; weights and the optimiser's state stay as they are. "float16" scales
            the loss.
        seed: of the order of the data and of all that is random in it.
        num_workers: processes that load data; 0 loads in the training process.
        device: where this process trains.
        strategy: how several processes share the work; see `distribute`.
        log_every: steps between two lines of figures.
        evaluate_every: steps between two evaluations; None evaluates at the end alone.
        checkpoint_every: steps between two saved states; None saves at the end, and before evaluations, alone.
        average_decay: of the moving average of the weights, which is then what is evaluated and kept in the end; see
            `AveragedWeights`. None keeps the last weights.
        compiled: whether layers of self-attention are compiled, which takes a minute and pays off on GPUs; see
            `compile_blocks`.
        peak_flops: operations a second that the device can do, to log how much of that is used; None if not known.

    Raises:
        ValueError: for a value that breaks these rules, naming the field.
    """

    num_steps: int
    batch_size: int
    accumulation: int = 1
    precision: Precision = "float32"
    seed: int = 0
    num_workers: int = 0
    device: torch.device = _CPU
    strategy: Strategy = "ddp"
    log_every: int = 10
    evaluate_every: int | None = None
    checkpoint_every: int | None = 1000
    average_decay: float | None = None
    compiled: bool = False
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "accumulation", "log_every", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        for name, choices in (("precision", get_args(Precision)), ("strategy", get_args(Strategy))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be one of {', '.join(choices)}")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay ({self.average_decay}) must be 0 or more and less than 1; None keeps none")
        if self.precision == "float16" and self.strategy == "fsdp":
            raise ValueError("precision 'float16' scales gradients, which strategy 'fsdp' shards; use 'bfloat16'")
