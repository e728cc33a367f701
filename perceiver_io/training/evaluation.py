"""The walk of all evaluations: each held-out example once, in order, with a seed that is the same every time."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset


def held_out_batches(
    dataset: Dataset, *seed: int, batch_size: int, num_workers: int, device: torch.device
) -> Iterator[Batch]:
    """Maps a data set to batches of all its examples on a device; the last batch may be shorter.

    Args:
        dataset: its examples are dicts of tensors, which a batch stacks along a new first axis.
        seed: numbers that tell the draws from those of training, where the data are made up; none where they are not.
        batch_size: examples at a time.
        num_workers: processes that load them; 0 loads them here.
        device: of the batches.
    """
    loader: DataLoader[Batch] = DataLoader(
        dataset,  # type: ignore[arg-type]  # its examples are asked for by draws
        batch_size,
        sampler=[Draw(index, derived_seed(*seed, index)) for index in range(len(dataset))],
        num_workers=num_workers,
    )
    for batch in loader:
        yield {name: tensor.to(device) for name, tensor in batch.items()}
