"""Pictures with their classes."""

import numpy as np
import pytest

from perceiver_io.visualize import draw_classes
from tests.visualize.drawing import drawn


def test_classes_are_drawn() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    drawn(draw_classes(image, ["$one$", "a very long name " * 9], [1.0, 0.0]))
    with pytest.raises(ValueError, match="1 names for 2 probabilities"):
        draw_classes(image, ["one"], [0.5, 0.5])
