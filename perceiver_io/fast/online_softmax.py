"""A softmax whose scores come a block of inputs at a time, exact up to rounding (Milakov and Gimelshein, 2018).

In float32, scores come in bits, so that their exponentials are powers of two, in a third of the time of powers of e on
AMD's processors.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.fast import choice


def score_unit(dtype: torch.dtype) -> float:
    """What scores, or queries, are multiplied with for `OnlineSoftmax`.

    In half precision 1, since queries would be rounded once more.
    """
    return 1 / math.log(2) if dtype in (torch.float32, torch.float64) else 1.0


def exponentiate(scores: Float[Tensor, "*rows inputs"], dtype: torch.dtype) -> Float[Tensor, "*rows inputs"]:
    """The exponentials of scores in the `score_unit` of a dtype, in their place."""
    return scores.exp_() if score_unit(dtype) == 1 else scores.exp2_()


class OnlineSoftmax:
    """Values that rows attend to, summed up block by block, in float32 at least.

    Sums of exponentials are rescaled whenever a larger score comes up, so that they never overflow.

    Args:
        like: rows [batch, rows, …] that attend; their dtype and device are those of the result.
        channels: of the values.
        is_bounded: whether all scores are so near to 0 that their exponentials can be summed as they are.
    """

    def __init__(self, like: Float[Tensor, "batch rows _"], channels: int, is_bounded: bool = False) -> None:
        self._is_bounded = is_bounded
        self._dtype = like.dtype
        self._precision = torch.promote_types(like.dtype, torch.float32)
        batch, rows, _ = like.shape
        self._best = like.new_full((batch, rows, 1), torch.finfo(self._precision).min, dtype=self._precision)
        self._total = torch.zeros_like(self._best)
        self._summed = like.new_zeros((batch, rows, channels), dtype=self._precision)
        self._widened: Tensor | None = None

    def weights(self, scores: Float[Tensor, "batch rows inputs"]) -> Float[Tensor, "batch rows inputs"]:
        """Maps the scores of a block, -inf where a row does not attend, to the weights of its values, for `add`.

        Args:
            scores: in the `score_unit` of the rows' dtype; the weights are computed in their place.
        """
        if self._is_bounded:
            weights = exponentiate(scores, self._dtype)
            # Rounded once: a sum of another precision than what is summed takes a copy of all of it.
            self._total.add_(weights.sum(-1, keepdim=True))
            return weights
        scores = scores.to(self._precision)
        best = torch.maximum(self._best, scores.amax(-1, keepdim=True))
        weights = exponentiate(scores.sub_(best), self._dtype)
        shrink = exponentiate(self._best - best, self._dtype)
        self._total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        self._summed.mul_(shrink)
        self._best = best
        return weights.to(self._dtype)

    def add(self, values: Float[Tensor, "batch rows channels"]) -> None:
        """Takes in the sum of a block's values by its weights."""
        if values.dtype != self._precision and choice.kind_of(values) == "cpu":
            # A sum of two precisions makes this copy in memory of its own, block by block.
            if self._widened is None:
                self._widened = torch.empty_like(self._summed)
            values = self._widened.copy_(values)
        self._summed.add_(values)

    def result(self) -> Float[Tensor, "batch rows channels"]:
        """The means of the values; 0 for rows that attend to nothing."""
        return (self._summed / self._total.clamp_min(torch.finfo(self._precision).tiny)).to(self._dtype)

    def log_total(self) -> Float[Tensor, "batch rows 1"]:
        """The logarithms of the sums of exponentials, in the unit of the scores."""
        logs = self._total.log().mul_(score_unit(self._dtype))
        return logs if self._is_bounded else logs.add_(self._best)
