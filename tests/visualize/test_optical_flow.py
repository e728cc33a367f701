"""Figures of optical flow."""

import numpy as np
import pytest
import torch

from perceiver_io.media import flow_to_image
from perceiver_io.visualize import draw_flow, draw_flow_wheel
from tests.visualize.drawing import drawn, picture, titles


@pytest.mark.parametrize("speed", [0.0, 7.0])
def test_flow_is_drawn(speed: float) -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    drawn(draw_flow(frame, frame, torch.full((2, 20, 30), speed)))


def test_unknown_flow_is_drawn() -> None:
    flow = torch.tensor([[[2.0, 1e10, float("nan"), float("inf")]], [[0.0, 0.0, 0.0, 1.0]]])
    assert drawn(draw_flow(*(np.zeros((1, 4, 3), np.uint8),) * 2, flow)).ndim == 3


def test_the_wheel_explains_the_colours() -> None:
    figure = draw_flow_wheel(2.5)
    drawn(figure)
    (axes,) = figure.axes
    wheel = picture(axes)
    assert axes.get_images()[0].get_extent() == [-2.5, 2.5, 2.5, -2.5]
    # Down and up, at half of the largest speed; the corner is outside.
    for (row, column), motion in (((225, 150), (0.0, 1.25)), ((75, 150), (0.0, -1.25))):
        flow = torch.tensor(motion).view(2, 1, 1)
        np.testing.assert_allclose(wheel[row, column, :3], flow_to_image(flow, 2.5)[0, 0], atol=2)
    assert (wheel[0, 0, 3], wheel[150, 150, 3]) == (0, 255)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "2.5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "−2.5"]
    with pytest.raises(ValueError, match=r"max_motion \(0\.0\) must be above 0 pixels"):
        draw_flow_wheel(0.0)


def test_a_flow_has_the_wheel_as_its_legend() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    figure = draw_flow(frame, frame, torch.full((2, 20, 30), 3.0))
    assert titles(figure.axes)[2:] == ["Motion, at most 4.24 pixels", "Direction and speed"]
    assert [label.get_text() for label in figure.axes[3].get_xticklabels()] == ["0", "4.24"]
