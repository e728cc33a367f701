"""Figures of position encodings: what is drawn where."""

import numpy as np
import pytest
import torch

from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding, ProjectedPositionEncoding
from perceiver_io.visualize import draw_position_encoding
from tests.visualize.drawing import drawn, picture, titles


def test_fourier_positions_of_an_image() -> None:
    encoding = FourierPositionEncoding((6, 9), num_bands=32, max_resolution=(11, 17))
    figure = draw_position_encoding(encoding)
    drawn(figure)
    assert len(figure.axes) == 2 * 7
    assert titles(figure.axes)[::3] == [
        "row",
        "sin(1.29π·row)",
        "cos(2.16π·row)",
        "cos(1π·column)",
        "sin(2.94π·column)",
    ]
    rows, columns = torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 9)
    # The frequencies run from 1 to half the resolution.
    frequency = 1 + (17 / 2 - 1) * 8 / 31
    drawn_values = {panel.get_title(): picture(panel) for panel in figure.axes}
    np.testing.assert_allclose(drawn_values["row"], rows[:, None].expand(6, 9).numpy(), atol=1e-6)
    expected = (torch.pi * frequency * columns).sin().expand(6, 9).numpy()
    np.testing.assert_allclose(drawn_values["sin(2.94π·column)"], expected, atol=1e-5)


def test_fourier_positions_of_a_video() -> None:
    encoding = FourierPositionEncoding((5, 6, 9), num_bands=2, concat_pos=False, sine_only=True)
    figure = draw_position_encoding(encoding)
    drawn(figure)
    assert titles(figure.axes) == ["sin(1π·row)", "sin(1π·column)"]
    expected = (torch.pi * torch.linspace(-1, 1, 9)).sin().expand(6, 9).numpy()
    np.testing.assert_allclose(picture(figure.axes[1]), expected, atol=1e-6)


def test_positions_of_a_sequence_have_all_channels() -> None:
    for encoding in (FourierPositionEncoding((9,), num_bands=2), LearnedPositionEncoding(9, 5)):
        figure = draw_position_encoding(encoding)
        drawn(figure)
        np.testing.assert_allclose(picture(figure.axes[0]), encoding()[0].detach().T.numpy())


def test_learned_positions_of_an_image() -> None:
    encoding = ProjectedPositionEncoding(LearnedPositionEncoding(5 * 7, 3), 31)
    figure = draw_position_encoding(encoding, (5, 7))
    drawn(figure)
    assert len(figure.axes) == 3 * 7
    assert titles(figure.axes)[-1] == "channel 30"
    expected = encoding()[0, :, 30].detach().view(5, 7).numpy()
    np.testing.assert_allclose(picture(figure.axes[-1]), expected)
    with pytest.raises(ValueError, match=r"inputs of sizes \(5, 8\) have 40 points but 35 positions were learned"):
        draw_position_encoding(encoding, (5, 8))
