"""Loss curves."""

import numpy as np
import pytest

from perceiver_io.visualize import draw_loss_curve
from tests.visualize.drawing import drawn


def test_a_loss_is_drawn_with_its_running_mean() -> None:
    records = [{"step": 5 * n, "kind": "training", "loss": float(n % 2)} for n in range(1, 152)]
    figure = draw_loss_curve([*records, {"step": 755, "kind": "evaluation", "score": 1.0}])
    drawn(figure)
    raw, mean = figure.axes[0].lines
    assert list(raw.get_xdata()) == [5 * n for n in range(1, 152)]
    assert len(mean.get_xdata()) == 149
    assert mean.get_xdata()[0] == 10
    np.testing.assert_allclose(mean.get_ydata()[:2], [2 / 3, 1 / 3])


def test_a_short_run_has_a_curve_too() -> None:
    (axes,) = draw_loss_curve([{"step": 1, "kind": "training", "loss": 2.0}]).axes
    assert axes.lines[1].get_ydata() == [2.0]


def test_a_run_without_figures_has_no_curve() -> None:
    with pytest.raises(ValueError, match="there are no figures of the training to draw; run at least one step"):
        draw_loss_curve([{"step": 4, "kind": "evaluation", "score": 1.0}])
