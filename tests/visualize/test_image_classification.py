"""Pictures with their classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_io.visualize import draw_classes, draw_flow, save_figure
from perceiver_io.visualize.style import shrunk
from tests.visualize.drawing import drawn


def test_classes_are_drawn() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    drawn(draw_classes(image, ["$one$", "a very long name " * 9], [1.0, 0.0]))
    with pytest.raises(ValueError, match="1 names for 2 probabilities"):
        draw_classes(image, ["one"], [0.5, 0.5])


@pytest.mark.parametrize("name", ["犬", "\x00\x1b[2J", "\u202egnp", "line\nline", "$x$", "\ud800", "", "x" * 10_000])
def test_names_of_any_kind_can_be_drawn(name: str) -> None:
    # Warnings are errors here: matplotlib has one for each character that its font lacks.
    assert drawn(draw_classes(np.zeros((9, 12, 3), np.uint8), [name, "b"], [0.7, 0.3])).shape[2] == 3


def test_photographs_are_shrunk_by_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2500, 2503, 3), dtype=np.uint8)
    small = shrunk(image)
    assert small.shape == (833, 834, 3)
    assert small[5, 7, 1] == image[15:18, 21:24, 1].astype(int).sum() // 9
    assert shrunk(image[:600]).shape == (200, 834, 3)
    assert shrunk(image[:2]).shape == (2, 2503, 3)
    assert shrunk(image[:900, :900]).shape == (900, 900, 3)


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    figure = draw_classes(np.zeros((9, 12, 3), np.uint8), ["a"], [1.0])
    save_figure(figure, tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_bytes().startswith(b"<?xml")
    for path, message in ((tmp_path / "c.xyz", "c.xyz cannot be written"), (tmp_path / "chart.svg" / "a.png", "a.png")):
        with pytest.raises(OSError, match=message):
            save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["chart.svg"]


def test_narrow_frames_make_no_endless_figure() -> None:
    frame = np.zeros((5000, 2, 3), np.uint8)
    assert drawn(draw_flow(frame, frame, torch.zeros(2, 5000, 2))).shape[0] <= 20_000
