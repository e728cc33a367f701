"""A protocol: how a model is measured on a data set, sample by sample."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from torch import Tensor, nn
from torch.utils.data import default_collate

from perceiver_io.processors import ClassProbability
from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.trainer import Batch, Dataset


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample and what the model made of it, for a person to look at.

    Attributes:
        title: what it is and what came out.
        pictures: captions and pixels.
        texts: captions and texts.
        classes: the likeliest, best first.
    """

    title: str
    pictures: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]] = ()
    texts: Sequence[tuple[str, str]] = ()
    classes: Sequence[ClassProbability] = ()


class Protocol(ABC):
    """A measurement whose result is made of a few numbers for each sample, its outcome.

    So an evaluation can be interrupted and shared among processes: outcomes are kept, and the figures are computed from
    all of them, in the order of the samples.

    Attributes:
        dataset: maps draws to samples, dicts of tensors; each is asked for once, with a seed that is always the same.
        description: of the data, in words.
        columns: names of the numbers of an outcome.
        units: of the figures, by name.
        published: the paper's figures, by name and then by model.
        seed: of the draws.
    """

    dataset: Dataset
    description: str
    columns: Sequence[str]
    units: Mapping[str, str]
    published: Mapping[str, Mapping[str, float]]
    seed: int = 0

    @abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps a model and a batch, on its device, to the outcome of each sample.

        Raises:
            ValueError: if the model's output is not finite.
        """

    @abstractmethod
    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Maps the outcomes of all samples to the figures to report, with `units`."""

    @abstractmethod
    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Maps outcomes to numbers that are larger where the model did worse."""

    @abstractmethod
    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Maps a model and a batch of one sample to what a person looks at."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Says what is decided about the measurement besides the data, as JSON can hold it."""

    def collate(self, samples: Sequence[Batch]) -> Batch:
        """Joins samples to a batch."""
        return default_collate(list(samples))

    def fingerprint(self) -> str:
        """Tells the data from others: names, sizes, labels and content of the files, and how they are prepared."""
        return own_fingerprint(self.dataset)


def column(protocol: Protocol, outcomes: Tensor, name: str) -> Float64[Tensor, " samples"]:
    """Picks one of the numbers of each outcome."""
    return outcomes[:, list(protocol.columns).index(name)]
