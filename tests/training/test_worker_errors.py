"""Errors of the processes that load data say what these raised."""

import pytest
import torch
from torch import Tensor

from perceiver_io.media.border import UnreadableError
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.sampling import Draw


class Damaged:
    """A data set none of whose examples can be read."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __len__(self) -> int:
        return 2

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Fails."""
        try:
            raise ValueError("the first bytes are wrong")
        except ValueError as cause:
            raise self.error(f"number {draw.index} is damaged: {cause}") from cause


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", [ValueError, UnreadableError, FileNotFoundError])
def test_errors_are_what_was_raised(error: type[Exception], num_workers: int) -> None:
    batches = HeldOutBatches(Damaged(error), batch_size=1, num_workers=num_workers)
    with pytest.raises(error, match=r"^number 0 is damaged: the first bytes are wrong$"):
        next(batches.on(torch.device("cpu")))
