"""The examples of a training step: a pure function of the seed and the step, so that a run can resume anywhere."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Draw:
    """A request to a data set: which example, and the seed of all that is random about it.

    Attributes:
        index: of the example, from 0.
        seed: for `torch.Generator().manual_seed`; differs from epoch to epoch.
        step: of the run, from 0, for data that grow harder; None outside a run.
        epoch: passes over the data before this one, for data of which each shows another part.
    """

    index: int
    seed: int
    step: int | None = None
    epoch: int = 0


def derived_seed(*numbers: int) -> int:
    """Maps numbers, such as a seed and a step, to a seed that looks unrelated to those of other numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # PyTorch takes 63 bits on every device


class DrawSampler(Sampler[list[Draw]]):
    """Maps a data set's size to the draws of each micro-batch of one process: a `DataLoader`'s `batch_sampler`.

    Every epoch is a new permutation; batches run on across the border of two epochs, so none is short. A step's batch
    is cut into micro-batches and each of these into the processes' shares, in order: two processes with a batch of 3
    see together what one sees with a batch of 6.

    Args:
        num_examples: of the data set.
        batch_size: examples of one micro-batch of one process.
        num_steps: steps of the whole run.
        accumulation: micro-batches of a step.
        rank: number of this process.
        world_size: number of processes.
        seed: of the order and of the draws.
        start_step: the first step to yield.

    Raises:
        ValueError: if the data set is empty.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        num_steps: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        start_step: int = 0,
    ) -> None:
        if num_examples < 1:
            raise ValueError("the data set has no examples; nothing can be learned from it")
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.accumulation = accumulation
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.start_step = start_step

    def draws(self, step: int, micro_batch: int = 0) -> list[Draw]:
        """Maps a step and one of its micro-batches to this process's draws."""
        first = ((step * self.accumulation + micro_batch) * self.world_size + self.rank) * self.batch_size
        return [self._draw(position, step) for position in range(first, first + self.batch_size)]

    def _draw(self, position: int, step: int) -> Draw:
        epoch, place = divmod(position, self.num_examples)
        order = _order(self.num_examples, derived_seed(self.seed, epoch))
        return Draw(int(order[place]), derived_seed(self.seed, epoch, place), step, epoch)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.num_steps):
            for micro_batch in range(self.accumulation):
                yield self.draws(step, micro_batch)

    def __len__(self) -> int:
        return (self.num_steps - self.start_step) * self.accumulation


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def _order(num_examples: int, seed: int) -> Tensor:
    return torch.randperm(num_examples, generator=torch.Generator().manual_seed(seed))
