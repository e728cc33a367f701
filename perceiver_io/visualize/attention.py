"""The places that latents attend to, on an image and over a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from perceiver_io.visualize.language import LINE_HEIGHT, ColouredText, draw_lines, split_characters, wrap
from perceiver_io.visualize.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4
# Stands for special tokens.
_SPECIAL = "▒"
# Of the largest weight; less is not worth a ground.
_VISIBLE = 0.02


def draw_attention_on_image(
    image: UInt8[np.ndarray, "height width 3"],
    weights: Float[Tensor, "latents inputs"],
    latents: Sequence[int] | None = None,
    grid: tuple[int, int] | None = None,
) -> Figure:
    """Draws an image once for each chosen latent, with the places that the encoder lets it attend to.

    Each latent has a scale of its own, from nothing to the largest of its weights, which its title tells.

    Args:
        image: as the model reads it, cropped and resized.
        weights: of one example and one head, or the mean of all: `maps.encoder[0].mean(0)` (see `record_attention`).
        latents: which ones; None for the 7 most focused.
        grid: (rows, columns) of the inputs, in their order; None for a pixel each. A convolution stem has a quarter of
            the pixels each way.

    Raises:
        ValueError: the weights do not fit the grid, or a latent that is not there.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    chosen = _choose(weights, latents, count=7)
    height, width = image.shape[:2]
    rows, columns = (height, width) if grid is None else grid
    if weights.shape[1] != rows * columns:
        raise ValueError(
            f"attention to {weights.shape[1]} inputs is not on a grid of {rows}×{columns}; "
            "say in `grid` how many rows and columns of inputs the image has"
        )
    num_columns = min(_COLUMNS, len(chosen) + 1)
    num_rows = -(-(len(chosen) + 1) // num_columns)
    figure = new_figure(2.6 * num_columns, (2.6 * height / width + 0.35) * num_rows)
    first, *panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    first.imshow(image)
    first.set_title("image", fontsize=10)
    grey = image @ np.array([0.299, 0.587, 0.114])
    for axes, (latent, share) in zip(panels, chosen.items(), strict=False):
        peak = float(share.max())
        heat = (share / (peak or 1)).view(rows, columns).numpy()
        axes.imshow(grey, cmap="gray", vmin=-120, vmax=375)
        # Places that are not attended to keep the image's grey.
        where = axes.get_images()[0].get_extent()
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.85 * heat**0.5, extent=where)
        axes.set_title(f"latent {latent}, up to {peak:.2%}", fontsize=10)
    for axes in (first, *panels):
        axes.set_axis_off()
    return figure


def draw_attention_over_text(
    tokens: Int[Tensor, " length"],
    weights: Float[Tensor, "latents length"],
    latents: Sequence[int] | None = None,
) -> Figure:
    """Draws a text once for each chosen latent, on colour where the encoder lets it attend.

    A character of several bytes has the sum of their weights. Each latent has a scale of its own, from nothing to the
    largest weight of a character, which its title tells. Special tokens are shaded blocks.

    Args:
        tokens: that the model read.
        weights: of one example and one head, or the mean of all: `maps.encoder[0].mean(0)` (see `record_attention`).
        latents: which ones; None for the 4 most focused.

    Raises:
        ValueError: other weights than a row of them for each latent, or a latent that is not there.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    chosen = _choose(weights, latents, count=4)
    if weights.shape[1] != len(tokens):
        raise ValueError(f"attention to {weights.shape[1]} inputs is not that to these {len(tokens)} tokens")
    characters = split_characters(tokens)
    num_lines = len(wrap([(text or _SPECIAL, None) for text, _ in characters]))
    figure = new_figure(10, len(chosen) * (0.45 + LINE_HEIGHT * num_lines))
    from matplotlib import colormaps

    for axes, (latent, share) in zip(figure.subplots(len(chosen), squeeze=False).flat, chosen.items(), strict=True):
        sums = [float(share[places].sum()) for _, places in characters]
        peak = max(sums)
        grounds = [colormaps["Blues"](value / peak) if value > _VISIBLE * peak else None for value in sums]
        coloured: ColouredText = [
            (text or _SPECIAL, ground) for (text, _), ground in zip(characters, grounds, strict=True)
        ]
        draw_lines(axes, wrap(coloured))
        axes.set_title(f"latent {latent}, up to {peak:.1%} on a character", fontsize=10, loc="left")
    return figure


def most_focused(weights: Float[Tensor, "latents inputs"], count: int) -> list[int]:
    """Finds the latents whose attention is the least spread, by its entropy, in their order."""
    return sorted(torch.special.entr(weights.detach().float()).sum(-1).argsort()[:count].tolist())


def _choose(weights: Tensor, latents: Sequence[int] | None, count: int) -> dict[int, Float[Tensor, " inputs"]]:
    """Chooses latents, each with its attention."""
    if weights.ndim != 2:
        raise ValueError(
            f"weights {tuple(weights.shape)} must be [latents, inputs]; choose an example and a head, or a mean: "
            "maps.encoder[0].mean(0)"
        )
    latents = most_focused(weights, count) if latents is None else latents
    unknown = [latent for latent in latents if not 0 <= latent < len(weights)]
    if unknown or not latents:
        raise ValueError(f"latents {list(latents)} must be some of 0…{len(weights) - 1}")
    return {latent: weights[latent].detach().float().cpu() for latent in latents}
