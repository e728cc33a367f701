"""The walk of all evaluations."""

import os

import torch
from torch import Tensor

from perceiver_io.training import Draw
from perceiver_io.training.evaluation import HeldOutBatches


class Seeds:
    """The draws themselves, and the process that they were made in."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return {"draw": torch.tensor([draw.index, draw.seed]), "process": torch.tensor(os.getpid())}


def test_each_example_once_the_same_at_each_evaluation_by_processes_that_stay() -> None:
    processes, walks = set(), []
    for num_workers in (0, 1):
        held_out = HeldOutBatches(Seeds(), 7, batch_size=2, num_workers=num_workers)
        for _ in range(2):
            batches = list(held_out.on(torch.device("cpu")))
            assert [len(batch["draw"]) for batch in batches] == [2, 2, 1]
            walks.append(torch.cat([batch["draw"] for batch in batches]))
            processes |= {int(number) for batch in batches for number in batch["process"]}
    assert all(torch.equal(walk, walks[0]) for walk in walks)
    assert walks[0][:, 0].tolist() == list(range(5))
    assert len(processes) == 2  # this one, and one worker for both evaluations


def test_a_walk_that_was_broken_off_begins_anew() -> None:
    held_out = HeldOutBatches(Seeds(), batch_size=1, num_workers=1)
    assert next(held_out.on(torch.device("cpu")))["draw"][0, 0] == 0
    assert [int(batch["draw"][0, 0]) for batch in held_out.on(torch.device("cpu"))] == list(range(5))
