"""Figures of optical flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.media.flow import UNKNOWN_FLOW, flow_to_image
from perceiver_io.visualize.style import new_figure, shrunk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_flow(
    frame1: UInt8[np.ndarray, "height width 3"],
    frame2: UInt8[np.ndarray, "height width 3"],
    flow: Float[Tensor, "2 height width"],
) -> Figure:
    """Draws two frames and the motion between them, with the colour wheel as legend.

    Raises:
        ValueError: the flow is not [2, height, width].
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    known = flow.detach().cpu().abs().nan_to_num(torch.inf).amax(0) <= UNKNOWN_FLOW
    speed = flow.detach().float().cpu().norm(dim=0)[known]
    fastest = float(speed.max()) if speed.numel() else 0.0
    height, width = frame1.shape[:2]
    figure = new_figure(15, 15 / 3.4 * height / width + 0.5)
    *panels, legend = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.4))
    pictures = (shrunk(frame1), shrunk(frame2), shrunk(flow_to_image(flow)))
    titles = ("First frame", "Second frame", f"Motion, at most {fastest:.3g} pixels")
    for axes, picture, title in zip(panels, pictures, titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    _draw_wheel(legend, fastest or 1.0)
    return figure


def draw_flow_wheel(max_motion: float = 1.0) -> Figure:
    """Draws the wheel that explains the colours of `flow_to_image`.

    Args:
        max_motion: pixels that have full saturation, as there.

    Raises:
        ValueError: `max_motion` is not positive.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    figure = new_figure(3.6, 3.6)
    _draw_wheel(figure.subplots(), max_motion)
    return figure


def _draw_wheel(axes: Axes, max_motion: float) -> None:
    """Draws the wheel: each point has the colour of the motion from the centre to it, in pixels."""
    side = torch.linspace(-1, 1, 301)
    directions = torch.stack(torch.meshgrid(side, side, indexing="xy"))
    wheel = flow_to_image(directions * max_motion, max_motion)
    inside = (directions.norm(dim=0) <= 1).numpy()
    axes.imshow(
        np.dstack([wheel, 255 * inside.astype(np.uint8)]),
        extent=(-max_motion, max_motion, max_motion, -max_motion),
    )
    axes.set_xticks([0, max_motion], ["0", f"{max_motion:.3g}"])
    axes.set_yticks([0, -max_motion], ["0", f"−{max_motion:.3g}"])
    axes.tick_params(length=0, labelsize=8, colors="grey")
    axes.spines[:].set_visible(False)
    axes.set_title("Direction and speed", fontsize=10)
    axes.set_xlabel("pixels to the right", fontsize=8)
    axes.set_ylabel("pixels down", fontsize=8)
