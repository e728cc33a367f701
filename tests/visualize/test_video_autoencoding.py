"""Videos beside each other."""

import numpy as np

from perceiver_io.visualize import side_by_side


def test_videos_stand_side_by_side() -> None:
    left, right = np.zeros((2, 20, 40, 3), np.uint8), np.full((2, 20, 40, 3), 90, np.uint8)
    both = side_by_side(left, right)
    assert both.shape == (2, 26 + 160, 320 + 8 + 320, 3)
    assert (both[:, 26:, :320] == 0).all()
    assert (both[:, 26:, 328:] == 90).all()
    assert both[:, :26].min() < 100  # the captions
