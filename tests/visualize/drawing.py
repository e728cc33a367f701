"""How a figure is looked at."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


def drawn(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def titles(axes: list[Axes]) -> list[str]:
    return [panel.get_title(loc) for panel in axes for loc in ("left", "center") if panel.get_title(loc)]


def picture(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())
