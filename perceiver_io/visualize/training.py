"""Training as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_io.visualize.style import ACCENT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_loss_curve(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the loss over the updates of a run. The thick line is a running mean over a fiftieth of the run.

    Args:
        records: the run's figures, as `training.read_metrics` reads them.

    Raises:
        ImportError: if matplotlib is missing; it comes with the `examples` extra.
        ValueError: if there are no figures of the training.
    """
    training = [record for record in records if record["kind"] == "training"]
    if not training:
        raise ValueError("there are no figures of the training to draw; run at least one step")
    steps = np.array([record["step"] for record in training])
    losses = np.array([record["loss"] for record in training])
    span = max(1, len(losses) // 50)
    figure = new_figure(6.4, 4)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color=ACCENT, alpha=0.3, linewidth=0.8)
    means = np.convolve(losses, np.full(span, 1 / span), mode="valid")
    axes.plot(steps[span // 2 :][: len(means)], means, color=ACCENT)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
