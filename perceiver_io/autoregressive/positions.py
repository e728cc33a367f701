"""Absolute positions: one table per axis, looked up and summed. Formulas are computed on demand, not stored.

Indices past a table take its last row, as in the reference.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perceiver_io.initializers import truncated_normal_
from perceiver_io.position_encoding import FourierPositionEncoding

Formula = Literal["sinusoidal", "fourier", "linear"]


def formula_rows(
    formula: Formula, indices: Int[Tensor, "*points"], size: int, channels: int
) -> Float[Tensor, "*points channels"]:
    """Maps indices to the rows of a table that a formula makes, in float32.

    Source: the reference's `generate_sinusoidal_features`, `generate_fourier_features`, `generate_linear_features`.

    Args:
        size: of the table, which "fourier" takes its highest frequency from.
        channels: width of a row. An odd one leaves a channel of zeros in "sinusoidal".
    """
    if formula == "linear":
        return indices.float()[..., None].expand(*indices.shape, channels)
    if formula == "fourier":
        encoding = FourierPositionEncoding([size], num_bands=channels // 2, max_resolution=[size], concat_pos=False)
        return encoding()[0].float().to(indices.device)[indices]
    return _sinusoidal_rows(indices, _sinusoidal_frequencies(channels).to(indices.device), channels)


def _sinusoidal_frequencies(channels: int) -> Float[Tensor, "half"]:
    """In float64 and by NumPy, whose last bits are the reference's."""
    half = channels // 2
    return torch.from_numpy(np.exp(np.arange(half) * (-np.log(10_000.0) / max(1, half - 1))))


def _sinusoidal_rows(
    indices: Int[Tensor, "*points"], frequencies: Float[Tensor, "half"], channels: int
) -> Float[Tensor, "*points channels"]:
    half = len(frequencies)
    angles = indices[..., None].double() * frequencies
    rows = torch.zeros(*indices.shape, channels, device=indices.device)
    rows[..., :half] = angles.sin()
    rows[..., half : 2 * half] = angles.cos()
    return rows


class FormulaTable(nn.Module):
    """Maps indices to rows that are a formula's, and stores none of them.

    Args:
        formula: of the rows.
        size: number of rows.
        channels: width of a row.
    """

    def __init__(self, formula: Formula, size: int, channels: int) -> None:
        super().__init__()
        self.formula, self.size, self.channels = formula, size, channels
        bits = None
        if formula == "sinusoidal":  # as in `Rotary`
            bits, device = _sinusoidal_frequencies(channels).view(torch.int64), torch.get_default_device()
            bits = bits if device.type == "meta" else bits.to(device)
        self.register_buffer("frequency_bits", bits, persistent=False)

    def forward(self, indices: Int[Tensor, "*points"]) -> Float[Tensor, "*points channels"]:
        """Computes the rows, in float32."""
        indices = indices.clamp(max=self.size - 1)
        if self.formula == "sinusoidal":  # whose frequencies are where the indices are
            frequencies = self.get_buffer("frequency_bits").view(torch.float64)
            return _sinusoidal_rows(indices, frequencies, self.channels)
        return formula_rows(self.formula, indices, self.size, self.channels)


class TrainedTable(nn.Module):
    """Maps indices to rows of a parameter.

    Args:
        size: number of rows.
        channels: width of a row.
        formula: that they start from; None for a truncated normal of deviation 1.
        trains: whether they receive gradients.
    """

    def __init__(self, size: int, channels: int, *, formula: Formula | None = None, trains: bool = True) -> None:
        super().__init__()
        self.trains = trains
        self.embeddings = nn.Parameter(truncated_normal_(torch.empty(size, channels), std=1.0))
        if formula is not None and not self.embeddings.is_meta:
            rows = formula_rows(formula, torch.arange(size, device=self.embeddings.device), size, channels)
            self.embeddings.data.copy_(rows)

    def forward(self, indices: Int[Tensor, "*points"]) -> Float[Tensor, "*points channels"]:
        """Looks the rows up."""
        table = self.embeddings if self.trains else self.embeddings.detach()
        return nn.functional.embedding(indices.clamp(max=len(table) - 1), table)
