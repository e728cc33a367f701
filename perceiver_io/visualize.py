"""Pictures of results: flow as colours, predictions as charts, videos side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from perceiver_io.inputs.extras import needs_extra
from perceiver_io.inputs.tokenizer import BytesTokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Middlebury's colour wheel (Baker et al., "A Database and Evaluation Methodology for Optical Flow", 2007): the
# number of colours on the way from red to yellow, yellow to green, green to cyan, … and back to red.
_WHEEL_CORNERS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], dtype=np.float64)
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
# .flo files mark unknown motion by larger values.
_UNKNOWN_FLOW = 1e9

# Characters of a text, each with whether the model filled it in.
_MarkedText = list[tuple[str, bool]]

_ACCENT = "#1f5fa8"
_LINE_COLUMNS = 84
_MAX_MASKED_SHOWN = 16
_MIN_FRAME_SIDE = 160


def _colour_wheel() -> Float[np.ndarray, "colours 3"]:
    """The 55 colours of Middlebury's wheel, values 0…1, by direction."""
    colours = []
    for corner, steps in enumerate(_WHEEL_STEPS):
        start, stop = _WHEEL_CORNERS[corner], _WHEEL_CORNERS[(corner + 1) % len(_WHEEL_CORNERS)]
        share = np.arange(steps)[:, None] / steps
        colours.append(start + (stop - start) * share)
    return np.concatenate(colours)


def flow_to_image(
    flow: Float[Tensor, "2 height width"], max_motion: float | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Flow → Middlebury's colours: hue is direction, saturation is speed; no motion is white, unknown is black.

    Args:
        flow: (x, y) in pixels. Values that are not finite or above 1e9 are unknown.
        max_motion: pixels that have full saturation; None takes the fastest motion of this flow. Faster motion
            is drawn darker.

    Raises:
        ValueError: `max_motion` is not positive.
    """
    if max_motion is not None and max_motion <= 0:
        raise ValueError(f"max_motion ({max_motion}) must be above 0 pixels; None takes the flow's own maximum")
    motion = flow.detach().to("cpu", torch.float64).numpy()
    known = np.isfinite(motion).all(0) & (np.abs(np.nan_to_num(motion)) <= _UNKNOWN_FLOW).all(0)
    x, y = np.where(known, motion, 0.0)
    speed = np.hypot(x, y)
    fastest = max_motion or float(speed.max(initial=0.0)) or 1.0
    speed = (speed / fastest)[..., None]

    wheel = _colour_wheel()
    position = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    before = np.floor(position).astype(np.int64)
    share = (position - before)[..., None]
    hue = (1 - share) * wheel[before] + share * wheel[(before + 1) % len(wheel)]
    colour = np.where(speed <= 1, 1 - speed * (1 - hue), 0.75 * hue)
    image: UInt8[np.ndarray, "height width 3"] = np.where(known[..., None], 255 * colour, 0).astype(np.uint8)
    return image


def draw_flow(
    frame1: UInt8[np.ndarray, "height width 3"],
    frame2: UInt8[np.ndarray, "height width 3"],
    flow: Float[Tensor, "2 height width"],
) -> Figure:
    """Two frames and the motion between them → a figure of all three, with the colour wheel as legend.

    Raises:
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    with needs_extra("drawing"):
        from matplotlib.figure import Figure
    known = flow.detach().cpu().abs().nan_to_num(torch.inf).amax(0) <= _UNKNOWN_FLOW
    speed = flow.detach().float().cpu().norm(dim=0)[known]
    fastest = float(speed.max()) if speed.numel() else 0.0
    height, width = frame1.shape[:2]
    figure = Figure(figsize=(15, 15 / 3.3 * height / width + 0.5), layout="constrained")
    *panels, legend = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.3))
    pictures = (frame1, frame2, flow_to_image(flow))
    titles = ("First frame", "Second frame", f"Motion, at most {fastest:.3g} pixels")
    for axes, picture, title in zip(panels, pictures, titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])

    side = torch.linspace(-1, 1, 301)
    directions = torch.stack(torch.meshgrid(side, side, indexing="xy"))
    wheel = flow_to_image(directions, max_motion=1.0)
    wheel[(directions.norm(dim=0) > 1).numpy()] = 255
    legend.imshow(wheel)
    legend.set_title("Direction")
    legend.set_axis_off()
    return figure


def draw_classes(
    image: UInt8[np.ndarray, "height width 3"], names: Sequence[str], probabilities: Sequence[float]
) -> Figure:
    """A picture and its most likely classes → a figure of the picture with a bar chart beside it.

    Args:
        image: as it was given to be classified.
        names: the classes to show, best first.
        probabilities: of these classes, 0…1.

    Raises:
        ValueError: as many names as probabilities are needed.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    with needs_extra("drawing"):
        from matplotlib.figure import Figure
    if len(names) != len(probabilities):
        raise ValueError(f"{len(names)} names for {len(probabilities)} probabilities; give one each")
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    picture, chart = figure.subplots(1, 2, width_ratios=(1, 1))
    picture.imshow(image)
    picture.set_axis_off()
    places = np.arange(len(names))
    chart.barh(places, probabilities, height=0.5, color=_ACCENT)
    for place, name, probability in zip(places, names, probabilities, strict=True):
        label = textwrap.shorten(name, 52, placeholder=" …", break_on_hyphens=False)
        chart.text(0, place - 0.32, label, va="bottom", fontsize=11, parse_math=False)
        chart.text(probability, place, f" {probability:.1%}", va="center", fontsize=11, color=_ACCENT)
    # Room for the figures right of a full bar.
    chart.set_xlim(0, 1.15 * max([*probabilities, 1e-6]))
    chart.set_ylim(len(names) - 0.6, -0.75)
    chart.set_axis_off()
    return figure


def draw_masked_text(
    tokens: Int[Tensor, " length"], probabilities: Float[Tensor, "length vocab"], top: int = 5
) -> Figure:
    """A text with masks and the model's predictions → a figure: the text filled in, and each byte's candidates.

    Args:
        tokens: what the model read, with MASK (3) at the bytes to predict.
        probabilities: of each token id at each position, 0…1.
        top: candidates to show for each byte.

    Raises:
        ValueError: no token is masked.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    with needs_extra("drawing"):
        from matplotlib.figure import Figure
    tokens, probabilities = tokens.detach().cpu(), probabilities.detach().float().cpu()
    masked = tokens == BytesTokenizer.mask_token
    if not masked.any():
        raise ValueError(f"none of the {len(tokens)} tokens is MASK ({BytesTokenizer.mask_token}): nothing to show")
    lines = _wrap(torch.where(masked, probabilities.argmax(-1), tokens), masked)
    # Inches of a line of text, and of a row of candidates.
    heights = [0.3 + 0.25 * len(lines), 0.9 + 0.42 * top]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    text, table = figure.subplots(2, 1, height_ratios=heights)
    _draw_lines(text, lines)
    _draw_candidates(table, masked.nonzero()[:, 0], probabilities, top)
    return figure


def _wrap(tokens: Int[Tensor, " length"], filled: Bool[Tensor, " length"]) -> list[_MarkedText]:
    """Token ids and which of them were filled in → lines of characters that fit the figure, broken at spaces."""
    tokenizer = BytesTokenizer()
    text: _MarkedText = []
    for is_filled, run in groupby(range(len(tokens)), key=lambda index: bool(filled[index])):
        text += [(character, is_filled) for character in tokenizer.decode(tokens[list(run)])]
    lines: list[_MarkedText] = [[]]
    for character, is_filled in text:
        if character == "\n":
            lines.append([])
            continue
        lines[-1].append((character, is_filled))
        if len(lines[-1]) > _LINE_COLUMNS:
            line = lines.pop()
            spaces = [column for column, (seen, _) in enumerate(line) if seen == " "]
            end = spaces[-1] + 1 if spaces else _LINE_COLUMNS
            lines += [line[:end], line[end:]]
    return lines


def _draw_lines(axes: Axes, lines: list[_MarkedText]) -> None:
    """Draws lines of text in a grid of characters, those filled in on a coloured ground."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("monospace"))
    for row, line in enumerate(lines):
        for column, (character, is_filled) in enumerate(line):
            # Characters that the font lacks would be drawn as boxes, with a warning each.
            known = character if font.get_char_index(ord(character)) else "□"
            axes.text(
                column,
                row,
                known,
                color="white" if is_filled else "black",
                family="monospace",
                fontsize=12,
                ha="center",
                va="center",
                parse_math=False,
            )
        ground = [column - 0.5 for column, (_, is_filled) in enumerate(line) if is_filled]
        axes.barh([row] * len(ground), 1, left=ground, height=0.9, color=_ACCENT)
    axes.set_xlim(-1, _LINE_COLUMNS)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_axis_off()


def _draw_candidates(
    axes: Axes, positions: Int[Tensor, " masked"], probabilities: Float[Tensor, "length vocab"], top: int
) -> None:
    """Draws a table of the likeliest bytes at each position, the likelier the darker."""
    shown = positions[:_MAX_MASKED_SHOWN]
    best, candidates = probabilities[shown].topk(top)
    axes.imshow(best.T.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for column, row in np.ndindex(*candidates.shape):
        probability = float(best[column, row])
        label = f"{BytesTokenizer().describe(int(candidates[column, row]))}\n{probability:.0%}"
        colour = "white" if probability > 0.5 else "black"
        axes.text(column, row, label, ha="center", va="center", color=colour, fontsize=9, parse_math=False)
    axes.set_xticks(range(len(shown)), [str(int(position)) for position in shown])
    axes.set_yticks([])
    axes.set_ylabel("likeliest first")
    more = len(positions) - len(shown)
    axes.set_xlabel("masked byte" + (f" (and {more} more)" if more else ""))
    axes.spines[:].set_visible(False)


def side_by_side(
    left: UInt8[np.ndarray, "frames height width 3"],
    right: UInt8[np.ndarray, "frames height width 3"],
    captions: tuple[str, str] = ("input", "reconstruction"),
) -> UInt8[np.ndarray, "frames new_height new_width 3"]:
    """Two videos → one that shows them beside each other under captions; small ones are enlarged.

    Raises:
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    with needs_extra("captions"):
        from PIL import Image, ImageDraw, ImageFont
    scale = max(1, -(-_MIN_FRAME_SIDE // min(left.shape[1:3])))
    left, right = (video.repeat(scale, axis=1).repeat(scale, axis=2) for video in (left, right))
    frames, height, width, _ = left.shape
    caption_height, gap = 26, 8
    canvas = np.full((frames, caption_height + height, 2 * width + gap, 3), 255, dtype=np.uint8)
    canvas[:, caption_height:, :width] = left
    canvas[:, caption_height:, width + gap :] = right
    strip = Image.fromarray(canvas[0, :caption_height])
    draw = ImageDraw.Draw(strip)
    for caption, start in zip(captions, (0, width + gap), strict=True):
        middle = (start + width / 2, caption_height / 2)
        draw.text(middle, caption, fill="black", anchor="mm", font=ImageFont.load_default(size=16))
    canvas[:, :caption_height] = np.asarray(strip)
    return canvas
