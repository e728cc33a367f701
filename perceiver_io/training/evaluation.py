"""The walk of all evaluations: each held-out example once, in order, with a seed that is the same every time."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from perceiver_io.training.device_batches import on_device
from perceiver_io.training.interruption import obey_the_trainer_alone
from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset
from perceiver_io.training.worker_errors import as_raised


class HeldOutBatches:
    """A data set as batches of all its examples, of which the last may be shorter; at each evaluation the same.

    The processes that load them stay for the next evaluation.

    Args:
        dataset: its examples are dicts of tensors, which a batch stacks along a new first axis.
        seed: numbers that tell the draws from those of training, where the data are made up; none where they are not.
        batch_size: examples at a time.
        num_workers: processes that load them; 0 loads them here.
    """

    def __init__(self, dataset: Dataset, *seed: int, batch_size: int, num_workers: int) -> None:
        self._loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type]  # its examples are asked for by draws
            batch_size,
            sampler=[Draw(index, derived_seed(*seed, index)) for index in range(len(dataset))],
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            worker_init_fn=obey_the_trainer_alone,
        )

    def on(self, device: torch.device) -> Iterator[Batch]:
        """Yields the batches, on a device."""
        return on_device(as_raised(self._loader), device)
