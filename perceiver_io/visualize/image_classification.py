"""Likeliest classes as a chart."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from perceiver_io.terminal import one_line
from perceiver_io.visualize.style import ACCENT, drawable, new_figure, shrunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_classes(
    image: UInt8[np.ndarray, "height width 3"], names: Sequence[str], probabilities: Sequence[float]
) -> Figure:
    """Draws a picture, and beside it its most likely classes as a bar chart.

    Args:
        image: as it was given to be classified.
        names: the classes to show, best first.
        probabilities: of these classes, 0…1.

    Raises:
        ValueError: as many names as probabilities are needed.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    if len(names) != len(probabilities):
        raise ValueError(f"{len(names)} names for {len(probabilities)} probabilities; give one each")
    figure = new_figure(11, 4.5)
    picture, chart = figure.subplots(1, 2, width_ratios=(1, 1))
    picture.imshow(shrunk(image))
    picture.set_axis_off()
    places = np.arange(len(names))
    chart.barh(places, probabilities, height=0.5, color=ACCENT)
    for place, name, probability in zip(places, names, probabilities, strict=True):
        label = textwrap.shorten(one_line(name), 52, placeholder=" …", break_on_hyphens=False)
        chart.text(0, place - 0.32, drawable(label), va="bottom", fontsize=11, parse_math=False)
        chart.text(probability, place, f" {probability:.1%}", va="center", fontsize=11, color=ACCENT)
    # Room for the figures right of a full bar.
    chart.set_xlim(0, 1.15 * max([*probabilities, 1e-6]))
    chart.set_ylim(len(names) - 0.6, -0.75)
    chart.set_axis_off()
    return figure
