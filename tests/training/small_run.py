"""A small run for the trainer's tests; as a script, one of several processes that `torchrun` starts."""

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import perceiver_io
from perceiver_io.training import (
    Draw,
    Lamb,
    Trainer,
    TrainerConfig,
    decay_groups,
    process_group,
    read_metrics,
    warmup_then_cosine,
    world,
)
from perceiver_io.training.metrics_log import Mirror
from tests.small_models import SMALL

NUM_EXAMPLES = 23
NUM_STEPS = 9


class Pictures:
    """Random pictures with random classes."""

    def __len__(self) -> int:
        return NUM_EXAMPLES

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        fixed = torch.Generator().manual_seed(draw.index)
        image = torch.randn(3, 19, 25, generator=fixed)
        label = torch.randint(11, (), generator=fixed)
        noise = torch.randn(3, 19, 25, generator=torch.Generator().manual_seed(draw.seed))
        return {"image": image + 0.1 * noise, "label": label, "index": torch.tensor(draw.index)}


class DroppingClassifier(nn.Module):
    """A classifier whose inputs drop out, so that training draws from the global source of randomness."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.dropout(images))


class TwoHeads(nn.Module):
    """A model with an output that no loss needs."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])
        self.other = nn.Linear(25, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"class": self.classifier(images), "other": self.other(images)}


class Scores(nn.Module):
    """A model that is trained fast."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.scores = nn.Linear(3 * 19 * 25, 11)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images.flatten(1))


def one_headed(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Cross-entropy of one output; the other one is logged."""
    outputs = model(batch["image"])
    return {"loss": F.cross_entropy(outputs["class"], batch["label"]), "other": outputs["other"].mean()}


def noisy_objective(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Cross-entropy on images with noise from the trainer's generator."""
    images = batch["image"]
    return objective(
        model, {**batch, "image": images + 0.1 * torch.randn(images.shape, generator=generator)}, generator
    )


def objective(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Cross-entropy, with nothing random."""
    logits = model(batch["image"])
    accuracy = (logits.argmax(-1) == batch["label"]).float().mean()
    return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy}


def stopping(objective: Callable[..., Any], at_call: int, stop: Callable[[], None]) -> Callable[..., Any]:
    """An objective that calls `stop` when it is called for the given time."""
    calls = iter(range(1, at_call + 1))

    def stopped(*arguments: Any) -> Any:
        if next(calls, None) == at_call:
            stop()
        return objective(*arguments)

    return stopped


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def make_trainer(
    directory: Path,
    *,
    objective: Callable[..., Any] = objective,
    dataset: Any = None,
    dropout: float = 0.0,
    rate: float = 0.02,
    model: nn.Module | None = None,
    evaluate: Callable[..., Any] | None = None,
    mirror: Mirror | None = None,
    **config: Any,
) -> Trainer:
    torch.manual_seed(3)
    config = {"num_steps": NUM_STEPS, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, **config}
    return Trainer(
        DroppingClassifier(dropout) if model is None else model,
        objective,
        dataset or Pictures(),
        TrainerConfig(**config),
        directory,
        make_optimizer=lambda model: Lamb(decay_groups(model, 0.1), lr=rate),
        schedule=warmup_then_cosine(config["num_steps"], 2),
        evaluate=evaluate,
        mirror=mirror,
    )


def losses(directory: Path) -> list[float]:
    records = read_metrics(directory / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return [record["loss"] for record in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kill-at", type=int, default=0, help="the step at which the last process kills itself")
    parser.add_argument("--end-at", type=int, default=0, help="the step at which the last process gets a SIGTERM")
    parser.add_argument("--kill-once", action="store_true", help="only if torchrun has not started it again yet")
    parser.add_argument("--sharded", choices=["plain", "noisy"], help="one run of a sharded model, and no other")
    parser.add_argument("--compiled", action="store_true", help="compile the model of such a run, or of the noisy one")
    parser.add_argument("--noisy-only", action="store_true", help="leave out the runs that compare strategies")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with process_group("cpu"):
        run = objective if arguments.sharded == "plain" else noisy_objective
        is_first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if arguments.kill_once and not is_first_start:
            arguments.kill_at = 0
        if world().rank == world().size - 1:
            if arguments.kill_at:
                run = stopping(run, arguments.kill_at, kill_this_process)
            if arguments.end_at:
                run = stopping(run, arguments.end_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        if arguments.sharded:
            settings: dict[str, Any] = {"strategy": "fsdp", "average_decay": 0.5, "batch_size": 4 // world().size}
            settings["compiled"] = arguments.compiled
            dropout = 0.3 if arguments.sharded == "noisy" else 0.0
            make_trainer(arguments.directory, objective=run, dropout=dropout, **settings).fit()
            return
        make_trainer(arguments.directory / "noisy", objective=run, dropout=0.3, compiled=arguments.compiled).fit()
        if arguments.noisy_only:
            return
        make_trainer(arguments.directory / "ddp", batch_size=2, accumulation=3).fit()
        interrupted = stopping(objective, 3 * NUM_STEPS - 4, interrupt)
        for run in (interrupted, objective):
            try:
                trainer = make_trainer(
                    arguments.directory / "fsdp", objective=run, batch_size=2, accumulation=3, strategy="fsdp"
                )
                trainer.fit()
            except Interrupted:
                continue
        state = trainer.full_state_dict()
        if world().rank == 0:
            torch.save(state, arguments.directory / "fsdp.pt")
        for strategy in ("ddp", "fsdp"):
            torch.manual_seed(1)
            directory = arguments.directory / f"{strategy}-one-headed"
            make_trainer(directory, objective=one_headed, model=TwoHeads(), batch_size=2, strategy=strategy).fit()


class Interrupted(Exception):  # noqa: N818  # it is no error
    """Stands for whatever ends a run."""


def interrupt() -> None:
    raise Interrupted


if __name__ == "__main__":
    main()
