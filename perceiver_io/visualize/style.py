"""Style that all figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCENT = "#1f5fa8"


def new_figure(width: int | float, height: int | float) -> Figure:
    """Maps width and height in inches to an empty figure that belongs to no window.

    Raises:
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    with needs_extra("drawing"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")
