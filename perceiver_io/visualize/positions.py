"""Position encodings as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.position_encoding import FourierPositionEncoding, PositionEncoding, linspace
from perceiver_io.visualize.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 7
# Of the bands, counted from the lowest: up to a quarter of the highest, which a small picture can still show.
_BANDS_SHOWN = (0, 1 / 16, 1 / 4)


def draw_position_encoding(encoding: PositionEncoding, index_dims: Sequence[int] | None = None) -> Figure:
    """Draws the channels of a position encoding over the grid, from negative (blue) to positive (red).

    A sequence is shown with all its channels below one another, a grid with some: of Fourier features the coordinates,
    and sines and cosines of some of the bands. Of more than two axes the last two are drawn, in the middle of the
    others.

    Args:
        index_dims: sizes of the grid; by default a Fourier encoding's own, and for others a sequence.

    Raises:
        ValueError: the encoding is not made for such a grid.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    if index_dims is None:
        index_dims = encoding.index_dims if isinstance(encoding, FourierPositionEncoding) else (encoding.num_points,)
    values = encoding(None, tuple(index_dims))[0].detach().float().cpu().unflatten(0, tuple(index_dims))
    return _sequence(values) if values.ndim == 2 else _maps(values, encoding)


def _sequence(values: Float[Tensor, "points channels"]) -> Figure:
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    largest = float(values.abs().max())
    image = axes.imshow(
        values.T.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
    )
    axes.set_xlabel("place")
    axes.set_ylabel("channel")
    figure.colorbar(image, ax=axes)
    return figure


def _maps(values: Float[Tensor, "*index_dims channels"], encoding: PositionEncoding) -> Figure:
    while values.ndim > 3:
        values = values[len(values) // 2]
    height, width, num_channels = values.shape
    if isinstance(encoding, FourierPositionEncoding):
        rows = [_fourier_channels(encoding, axis) for axis in (-2, -1)]
    else:
        shown = torch.linspace(0, num_channels - 1, min(num_channels, 3 * _COLUMNS)).round().long().tolist()
        titles = [(channel, f"channel {channel}") for channel in shown]
        rows = [dict(titles[start : start + _COLUMNS]) for start in range(0, len(titles), _COLUMNS)]
    num_columns = max(map(len, rows))
    figure = new_figure(1.7 * num_columns, (1.7 * height / width + 0.45) * len(rows))
    for row, line in zip(rows, figure.subplots(len(rows), num_columns, squeeze=False), strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, (channel, title) in zip(line, row.items(), strict=False):
            largest = float(values[..., channel].abs().max())
            axes.imshow(values[..., channel].numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set_title(title, fontsize=9)
    return figure


def _fourier_channels(encoding: FourierPositionEncoding, axis: int) -> dict[int, str]:
    """The channels of one of the last two axes to show, each with its title."""
    num_axes, num_bands = len(encoding.index_dims), encoding.num_bands
    resolution = (encoding.max_resolution or encoding.index_dims)[axis]
    frequencies = linspace(1.0, resolution / 2, num_bands)
    name = "row" if axis == -2 else "column"
    channels = {num_axes + axis: name} if encoding.concat_pos else {}
    bands = sorted({int(share * num_bands) for share in _BANDS_SHOWN})
    waves = ("sin",) if encoding.sine_only else ("sin", "cos")
    for band in bands:
        for number, wave in enumerate(waves):
            # Coordinates come first, then all sines, then all cosines, axis by axis.
            first = num_axes * (encoding.concat_pos + number * num_bands) + (num_axes + axis) * num_bands
            channels[first + band] = f"{wave}({frequencies[band]:.3g}π·{name})"
    return channels
