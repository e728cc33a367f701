"""A protocol of plain numbers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_io.evaluation import Example, Measured, Protocol, measured
from perceiver_io.training import Draw
from perceiver_io.training.trainer import Batch

NUMBER = 23
IDENTITY = {"protocol": "numbers", "weights": "1.5"}


class Numbers:
    """Samples whose values are noise; some cannot be read."""

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.unreadable = unreadable

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, draw: Draw) -> Batch:
        if draw.index in self.unreadable:
            raise ValueError(f"number {draw.index} is damaged")
        return {"value": torch.randn(5, generator=torch.Generator().manual_seed(draw.seed))}


class Times(nn.Module):
    """Multiplies; ends by an error after so many batches, as a process that is killed does."""

    def __init__(self, batches: int = 1000) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.batches = batches

    def forward(self, values: Tensor) -> Tensor:
        self.batches -= 1
        if self.batches < 0:
            raise RuntimeError("killed")
        return values * self.factor


class NumbersProtocol(Protocol):
    """The sum and the mean of each sample's values, times the model's factor."""

    columns = ("sum", "mean")
    description = "noise"
    seed = 3

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.dataset = Numbers(unreadable)
        self.units = {"mean": "px"}
        self.published: dict[str, dict[str, float]] = {"mean": {"paper": 0.5}}

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        values = model(batch["value"]).double()
        return torch.stack([values.sum(1), values.mean(1)], dim=1)

    def figures(self, outcomes: Tensor) -> dict[str, float]:
        return {"mean": float(outcomes[:, 1].mean()), "unbounded": float("inf")}

    def badness(self, outcomes: Tensor) -> Tensor:
        return outcomes[:, 0]

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        return Example(title=f"number {index}")

    def settings(self) -> dict[str, Any]:
        return {}


def measure(directory: Path, model: nn.Module | None = None, **options: Any) -> Measured:
    unreadable = options.pop("unreadable", ())
    options = {"batch_size": 4, **options}
    return measured(NumbersProtocol(unreadable), model or Times(), directory, IDENTITY, **options)
