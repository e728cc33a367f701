"""The trainer's own time and the exchange beside a step that sleeps, so that any number of processes share few cores.

for N in 1 2 4 8; do torchrun --standalone --nproc-per-node $N -m benchmarks.weak_scaling; done
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perceiver_io.training import Draw, Lamb, Trainer, TrainerConfig, process_group, read_metrics, world

STEP = 1.0  # seconds
NUM_STEPS, WARM_UP = 8, 2
WIDTH, DEPTH = 512, 4  # 1.05 million parameters


class Numbers:
    """Random numbers."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return {"x": torch.randn(WIDTH, generator=torch.Generator().manual_seed(draw.seed))}


def objective(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Sleeps in place of a step."""
    time.sleep(STEP)
    return {"loss": model(batch["x"]).square().mean()}


def main() -> None:
    """Prints the median time of a step in the first process, without what sleeps."""
    torch.set_num_threads(1)
    strategy = sys.argv[1] if len(sys.argv) > 1 else "ddp"
    with process_group("cpu"):
        directory = [tempfile.mkdtemp()]
        if world().size > 1:
            dist.broadcast_object_list(directory)
        path = Path(directory[0])
        trainer = Trainer(
            nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))),
            objective,
            Numbers(),
            TrainerConfig(num_steps=NUM_STEPS, batch_size=4, log_every=1, checkpoint_every=None, strategy=strategy),
            path,
            make_optimizer=lambda model: Lamb(model.parameters(), lr=1e-3),
            schedule=lambda step: 1.0,
        )
        trainer.fit()
        if world().rank == 0:
            times = [record["seconds"] for record in read_metrics(path / "metrics.jsonl")][WARM_UP:]
            median = statistics.median(later - earlier for earlier, later in pairwise(times))
            print(f"{world().size} processes: {1e3 * (median - STEP):.0f} ms a step beside {STEP:g} s of sleep")


if __name__ == "__main__":
    main()
