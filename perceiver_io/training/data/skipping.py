"""Data sets with damaged files in them."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch

from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset

# So many examples in a row that cannot be used are no accident.
_MOST_TRIED = 1000


class SkipUnusable:
    """Maps draws to a data set's examples, and to another one where one cannot be used.

    So one damaged file among a million does not end a run; `warn_of_unusable` tells of those that were left out. Which
    one takes the place depends on the draw alone.

    Args:
        dataset: raises an error, of whatever kind, for an example that cannot be used; one that names the file.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        # Shared with the processes that load data.
        self._unusable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def fingerprint(self) -> str:
        """Tells these data from others: by the data set's own fingerprint."""
        return own_fingerprint(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to its example, or to the first usable one of others in an order that the draw decides.

        Raises:
            ValueError: if none of a thousand (or of all, if there are fewer) is usable, with the first one's reason.
        """
        reason: Exception | None = None
        for index in self._candidates(draw):
            try:
                return self.dataset[replace(draw, index=index)]
            except Exception as error:  # readers of files raise whatever comes to their minds
                self._unusable[index] = True
                reason = reason or error
        raise ValueError(
            f"none of {min(len(self), _MOST_TRIED)} examples can be used; one of the reasons: {reason}"
        ) from reason

    def _candidates(self, draw: Draw) -> Iterator[int]:
        """The draw's index, then others, none twice: damaged files often lie side by side."""
        number = len(self)
        step = derived_seed(draw.seed, draw.index) % number
        while math.gcd(step, number) != 1:
            step += 1
        return ((draw.index + tried * step) % number for tried in range(min(number, _MOST_TRIED)))

    def unusable(self) -> list[int]:
        """The indices of the examples that could not be used so far."""
        return self._unusable.nonzero()[:, 0].tolist()

    def warn_of_unusable(self) -> None:
        """Warns of the examples that could not be used so far, if any: how many, and why the first could not."""
        unusable = self.unusable()
        if not unusable:
            return
        try:
            self.dataset[Draw(unusable[0], 0)]
            reason: object = f"number {unusable[0]}, at times"
        except Exception as error:
            reason = error
        warnings.warn(
            f"{len(unusable)} of {len(self)} examples could not be used, and others took their places; "
            f"the first: {reason}",
            stacklevel=2,
        )
