"""Figures of attention: what is drawn where."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

import perceiver_io
from perceiver_io import record_attention
from perceiver_io.processors import BytesTokenizer
from perceiver_io.visualize import draw_attention_on_image, draw_attention_over_text, most_focused
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked
from tests.visualize.drawing import drawn, picture, titles


def heat(axes: Axes) -> np.ndarray:
    ground, overlay = axes.get_images()
    assert overlay.get_extent() == ground.get_extent()
    return np.asarray(overlay.get_array())


def test_attention_on_an_image() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    weights = torch.zeros(5, 12)
    weights[3, 7], weights[3, 2] = 0.75, 0.25
    weights[1] = 1 / 12
    figure = draw_attention_on_image(image, weights, [3, 1, 0], grid=(3, 4))
    drawn(figure)
    first, *panels = figure.axes
    assert titles(figure.axes) == ["image", "latent 3, up to 75.00%", "latent 1, up to 8.33%", "latent 0, up to 0.00%"]
    assert picture(first).shape == (6, 8, 3)
    expected = np.zeros((3, 4))
    expected[1, 3], expected[0, 2] = 1, 1 / 3
    np.testing.assert_allclose(heat(panels[0]), expected, rtol=1e-6)
    np.testing.assert_allclose(heat(panels[1]), np.ones((3, 4)), rtol=1e-6)
    assert (heat(panels[2]) == 0).all()


def test_recorded_attention_is_drawn() -> None:
    model = perceiver_io.create_model("imagenet-conv", **SMALL["imagenet-conv"]).eval()
    with torch.no_grad(), record_attention(model, ["encoder"]) as maps:
        model(*small_inputs(model))
    image = np.zeros((19, 25, 3), np.uint8)
    figure = draw_attention_on_image(image, maps.encoder[0].mean(0), grid=(5, 7))
    assert len(figure.axes) == 8
    drawn(figure)
    with unchecked(), pytest.raises(ValueError, match=r"weights \(2, 1, 7, 35\) must be \[latents, inputs\]; choose"):
        draw_attention_on_image(image, maps.encoder)
    with pytest.raises(ValueError, match="attention to 35 inputs is not on a grid of 19×25; say in `grid`"):
        draw_attention_on_image(image, maps.encoder[0, 0])
    for latents in ([7], [-1], []):
        with pytest.raises(ValueError, match=r"latents \[.*\] must be some of 0…6"):
            draw_attention_on_image(image, maps.encoder[0, 0], latents, grid=(5, 7))


def test_the_most_focused_latents_come_in_their_order() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4], [0.1, 0.9, 0.0]])
    assert most_focused(weights, 2) == [1, 3]
    assert most_focused(weights, 9) == [0, 1, 2, 3]


def test_attention_over_text() -> None:
    tokens = BytesTokenizer().encode("ä b\nc")
    tokens[3] = BytesTokenizer.mask_token
    weights = torch.tensor([[0.1, 0.2, 0.0, 0.6, 0.0, 0.1], [0.0] * 6])
    figure = draw_attention_over_text(tokens, weights, [0, 1])
    drawn(figure)
    assert titles(figure.axes) == ["latent 0, up to 60.0% on a character", "latent 1, up to 0.0% on a character"]
    first, second = figure.axes
    assert [cell.get_text() for cell in first.texts] == ["ä", " ", "▒", "c"]
    # White on the darkest ground.
    assert [cell.get_color() for cell in first.texts] == ["black", "black", "white", "black"]
    grounds = {(bar.get_x() + 0.5, bar.get_y() + 0.45): bar.get_facecolor() for bar in first.patches}
    assert sorted(grounds) == [(0.0, 0.0), (0.0, 1.0), (2.0, 0.0)]
    darkness = {place: -sum(to_rgb(colour)) for place, colour in grounds.items()}
    assert sorted(darkness, key=lambda place: darkness[place]) == [(0.0, 1.0), (0.0, 0.0), (2.0, 0.0)]
    assert not second.patches
    with unchecked(), pytest.raises(ValueError, match="attention to 6 inputs is not that to these 4 tokens"):
        draw_attention_over_text(tokens[:4], weights)


@pytest.mark.parametrize("text", ["short", "$x_1$ – 日本語 🙂 \\ \n\n" + "long " * 60, "x" * 200])
def test_any_text_is_drawn(text: str) -> None:
    tokens = BytesTokenizer().encode(text)
    drawn(draw_attention_over_text(tokens, torch.rand(6, len(tokens)).softmax(-1)))
