"""Text on coloured grounds: predictions filled in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from perceiver_io.processors.tokenizer import BytesTokenizer
from perceiver_io.visualize.style import ACCENT, drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = str | tuple[float, float, float, float]
# Characters of a text, each with the colour of its ground; None for none.
ColouredText = list[tuple[str, Colour | None]]

# Inches of a line of text.
LINE_HEIGHT = 0.25
_LINE_COLUMNS = 84
_MAX_MASKED_SHOWN = 16


def draw_masked_text(
    tokens: Int[Tensor, " length"], probabilities: Float[Tensor, "length vocab"], top: int = 5
) -> Figure:
    """Draws a text as the model filled it in, and the candidates for each byte.

    Args:
        tokens: that the model read, with MASK (3) at the bytes to predict.
        probabilities: of each token id at each position, 0…1.
        top: candidates to show for each byte.

    Raises:
        ValueError: no token is masked.
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    tokens, probabilities = tokens.detach().cpu(), probabilities.detach().float().cpu()
    masked = tokens == BytesTokenizer.mask_token
    if not masked.any():
        raise ValueError(f"none of the {len(tokens)} tokens is MASK ({BytesTokenizer.mask_token}): nothing to show")
    characters = split_characters(torch.where(masked, probabilities.argmax(-1), tokens))
    lines = wrap([(text, ACCENT if masked[places].any() else None) for text, places in characters if text])
    # Inches of the text, and of the table of candidates.
    heights = [0.3 + LINE_HEIGHT * len(lines), 0.9 + 0.42 * top]
    figure = new_figure(10, sum(heights))
    text_axes, table = figure.subplots(2, 1, height_ratios=heights)
    draw_lines(text_axes, lines)
    _draw_candidates(table, masked.nonzero()[:, 0], probabilities, top)
    return figure


def split_characters(tokens: Int[Tensor, " length"]) -> list[tuple[str, list[int]]]:
    """Maps token ids to the characters of their text, each with the places of its tokens.

    Special tokens are empty strings, bytes that are not UTF-8 are U+FFFD, one for each.
    """
    num_special = BytesTokenizer.num_special_tokens
    characters: list[tuple[str, list[int]]] = []
    for is_special, run in groupby(enumerate(tokens.tolist()), key=lambda pair: pair[1] < num_special):
        places, ids = zip(*run, strict=True)
        if is_special:
            characters += [("", [place]) for place in places]
            continue
        unread = iter(places)
        # "surrogateescape" gives every byte that is not UTF-8 a character, outside of what text can have.
        for character in bytes(token - num_special for token in ids).decode(errors="surrogateescape"):
            if "\ud800" <= character <= "\udfff":
                characters.append(("\N{REPLACEMENT CHARACTER}", [next(unread)]))
            else:
                characters.append((character, [next(unread) for _ in character.encode()]))
    return characters


def wrap(text: ColouredText) -> list[ColouredText]:
    """Breaks a text into lines that fit the figure, at spaces."""
    lines: list[ColouredText] = [[]]
    for character, ground in text:
        if character == "\n":
            lines.append([])
            continue
        lines[-1].append((character, ground))
        if len(lines[-1]) > _LINE_COLUMNS:
            line = lines.pop()
            spaces = [column for column, (seen, _) in enumerate(line) if seen == " "]
            end = spaces[-1] + 1 if spaces else _LINE_COLUMNS
            lines += [line[:end], line[end:]]
    return lines


def draw_lines(axes: Axes, lines: Sequence[ColouredText]) -> None:
    """Draws lines of text in a grid of characters, white on dark grounds."""
    from matplotlib.colors import to_rgb

    for row, line in enumerate(lines):
        known = drawable("".join(character for character, _ in line), "monospace")
        for column, (_, ground) in enumerate(line):
            is_dark = ground is not None and np.dot(to_rgb(ground), (0.3, 0.6, 0.1)) < 0.5
            axes.text(
                column,
                row,
                known[column],
                color="white" if is_dark else "black",
                family="monospace",
                fontsize=12,
                ha="center",
                va="center",
                parse_math=False,
            )
        grounds = {column - 0.5: ground for column, (_, ground) in enumerate(line) if ground is not None}
        axes.barh([row] * len(grounds), 1, left=list(grounds), height=0.9, color=list(grounds.values()))
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
