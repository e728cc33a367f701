"""Mixtures of data sets, each with a share of the examples, as the paper learns language from C4 and Wikipedia."""

import dataclasses
import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import nn

from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch, Dataset, Evaluation

# Examples of the shortest epoch: with fewer, whole numbers of them would be far from the shares.
_SHORTEST_EPOCH = 1000
# An epoch has an example of each data set at least: so it would be too long for a list of its order.
_LEAST_SHARE = 1e-6
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class Mixture:
    """Maps draws to examples of several data sets, of each as many as its share says.

    An epoch is as long as the data set lasts that is the first to run out at its share, or a thousand examples if that
    is more. In it every data set takes up where it stopped in the epoch before, and starts again when it has been gone
    through: so none of its examples comes twice before all others of it have come. Which one a draw gives depends on
    the draw alone.

    Args:
        datasets: to mix.
        shares: of the examples, one for each data set; see `check_shares`.

    Raises:
        ValueError: for shares that break the rules.
    """

    def __init__(self, datasets: Sequence[Dataset], shares: Sequence[float]) -> None:
        check_shares(shares)
        self.datasets = list(datasets)
        self.shares = list(shares)
        lasting = min(len(dataset) / share for dataset, share in zip(self.datasets, shares, strict=True))
        length = math.ceil(max(lasting, _SHORTEST_EPOCH, 2 / min(shares)))
        self.ends = [round(end * length) for end in accumulate(shares)]
        # Steps that lead through a whole data set, and spread the examples of an epoch over it.
        self.strides = [_stride(len(dataset)) for dataset in self.datasets]

    def fingerprint(self) -> str:
        """Tells this mixture from others: by the data sets' own fingerprints and their shares."""
        parts = [own_fingerprint(dataset) for dataset in self.datasets]
        return f"{hashlib.sha256(repr(parts).encode()).hexdigest()} {self.shares}" if all(parts) else ""

    def __len__(self) -> int:
        return self.ends[-1]

    def source(self, draw: Draw) -> tuple[int, Draw]:
        """Maps a draw to the number of the data set that its example is from, and the draw from that."""
        number = bisect_right(self.ends, draw.index)
        begin = self.ends[number - 1] if number else 0
        position = draw.epoch * (self.ends[number] - begin) + draw.index - begin
        return number, dataclasses.replace(draw, index=position * self.strides[number] % len(self.datasets[number]))

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to an example of one of the data sets."""
        number, own = self.source(draw)
        return self.datasets[number][own]


def _stride(length: int) -> int:
    stride = max(1, round(_GOLDEN_RATIO * length))
    while math.gcd(stride, length) != 1:
        stride += 1
    return stride


def mixed(datasets: Sequence[Dataset], shares: Sequence[float]) -> Dataset:
    """Maps data sets to their mixture; an only one stays as it is."""
    return Mixture(datasets, shares) if len(datasets) > 1 else datasets[0]


def mixed_evaluation(evaluations: Mapping[str, Evaluation], shares: Sequence[float]) -> Evaluation:
    """Maps evaluations by name to one of the mixture; an only one stays as it is."""
    if len(evaluations) > 1:
        return MixtureEvaluation(evaluations=evaluations, shares=shares)
    (evaluation,) = evaluations.values()
    return evaluation


def check_shares(shares: Sequence[float]) -> None:
    """Checks that shares are at least 1e-6 and add up to 1.

    Raises:
        ValueError: if they are not or do not, naming them.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"the share {share:g} must be above 0 and at most 1")
        if share < _LEAST_SHARE:
            raise ValueError(f"the share {share:g} is below {_LEAST_SHARE:g}; leave these examples out")
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"the shares {' + '.join(f'{s:g}' for s in shares)} are {sum(shares):g}; they must add up to 1"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureEvaluation:
    """Maps a model to its figures on a mixture: those of the data sets, and their means weighted by the shares.

    Args:
        evaluations: of the data sets, by their names.
        shares: see `Mixture`.
    """

    evaluations: Mapping[str, Evaluation]
    shares: Sequence[float]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns the means, such as "accuracy", and after them each data set's own, such as "accuracy_c4"."""
        figures = {name: evaluate(model) for name, evaluate in self.evaluations.items()}
        means: dict[str, float] = {}
        for share, own in zip(self.shares, figures.values(), strict=True):
            for figure, value in own.items():
                means[figure] = means.get(figure, 0.0) + share * value
        return means | {f"{figure}_{name}": value for name, own in figures.items() for figure, value in own.items()}
