"""The page that `perceiver-io demo` writes: one file, with everything in it."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.commands import mlm, video
from perceiver_io.commands.page import Section, bars, data_url, picture, png, whole_page
from perceiver_io.media import flow_to_image
from perceiver_io.processors import BytesTokenizer, ClassProbability

TITLE = "Perceiver IO: five tasks"

_WAVE_SAMPLES = 200
_VIDEO_HEIGHT = 256
_BYTES_SHOWN = 20


def page(summary: str, sections: Sequence[Section], examples: Sequence[str], versions: str) -> str:
    """Joins sections to the whole page.

    Args:
        summary: of what was done.
        examples: lines for the shell.
        versions: of what computed it.
    """
    lines = escape("\n".join(examples))
    footer = f"<p>Your own data:</p>\n<pre><code>{lines}</code></pre>\n<p>{escape(versions)}</p>"
    return whole_page(TITLE, "Perceiver IO", escape(summary), sections, footer)


def facts(model: str, parameters: int, files: Sequence[str]) -> str:
    """Maps facts about a task's model and its files to HTML."""
    links = ", ".join(f'<a href="{escape(name, quote=True)}">{escape(name)}</a>' for name in files)
    return f"{escape(model)}: {parameters:,} parameters. Files: {links}"


def filled_text(prediction: mlm.Prediction) -> str:
    """Shows a text with its masks filled in: as the model read it, as it filled it, and the candidates."""
    tokenizer = BytesTokenizer()
    masked = prediction.tokens == tokenizer.mask_token
    filled = torch.where(masked, prediction.probabilities.argmax(-1), prediction.tokens)
    before, after = [], []
    for is_masked, run in groupby(range(len(filled)), key=lambda place: bool(masked[place])):
        places = list(run)
        text = escape(tokenizer.decode(filled[places]))
        dots = "·" * len(places)
        before.append(
            f'<span class="gap" role="img" aria-label="{len(places)} hidden bytes">{dots}</span>' if is_masked else text
        )
        after.append(f"<mark>{text}</mark>" if is_masked else text)
    table = _candidates(
        "candidates",
        "Each hidden byte, by its place in the text, and the likeliest candidates",
        [str(byte.position) for byte in prediction.text.masked_bytes],
        [byte.candidates for byte in prediction.text.masked_bytes],
    )
    return f'<p class="quote">{"".join(before)}</p>\n<p class="quote">{"".join(after)}</p>\n{table}'


def continued_text(
    prompt: str, likeliest: str, candidates: Sequence[Sequence[ClassProbability]], others: Sequence[str]
) -> str:
    """Shows a prompt and its likeliest continuation, the alternatives to each of its first bytes, and other ones."""
    shown = candidates[:_BYTES_SHOWN]
    table = _candidates(
        "alternatives",
        f"The first {len(shown)} of them, and what else the model held likely in their places",
        [str(place) for place in range(1, len(shown) + 1)],
        shown,
    )
    quotes = (f'<p class="quote">{escape(prompt)}<mark>{escape(text)}</mark></p>' for text in (likeliest, *others))
    return f"{next(quotes)}\n{table}\n<h3>Drawn by chance, at a temperature of 0.6</h3>\n" + "\n".join(quotes)


def _candidates(anchor: str, caption: str, heads: Sequence[str], columns: Sequence[Sequence[ClassProbability]]) -> str:
    """A table with a column of candidates for each byte."""
    cells = "".join(f"<tr>{''.join(map(_candidate, row))}</tr>" for row in zip(*columns, strict=True))
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<figure><figcaption id="{anchor}">{caption}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{anchor}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></div></figure>"
    )


def _candidate(candidate: ClassProbability) -> str:
    name, share = candidate
    return f'<td style="--share:{share:.3f}"><b>{escape(name)}</b>{share:.0%}</td>'


def classified_pictures(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], predictions: Sequence[Sequence[ClassProbability]]
) -> str:
    """Shows pictures and their likeliest classes."""
    cards = (
        f'<div class="card">{picture(pixels, f"picture {number}")}{bars(classes)}</div>'
        for number, (pixels, classes) in enumerate(zip(pictures, predictions, strict=True), start=1)
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def flow_panels(
    first: UInt8[np.ndarray, "height width 3"],
    second: UInt8[np.ndarray, "height width 3"],
    flow: Float[Tensor, "2 height width"],
    truth: Float[Tensor, "2 height width"],
) -> str:
    """Shows two frames, the motion that was found, and the true one, with the colours' legend."""
    fastest = float(torch.cat([flow, truth], dim=1).norm(dim=0).max())
    fastest = fastest or 1.0  # nothing moves
    panels = (
        (first, "The first frame"),
        (second, "The second frame"),
        (flow_to_image(flow, fastest), "The motion that the model finds"),
        (flow_to_image(truth, fastest), "The true motion"),
    )
    figures = (
        f"<figure>{picture(pixels, caption.lower())}<figcaption>{caption}</figcaption></figure>"
        for pixels, caption in panels
    )
    return (
        f'<div class="panels">{"".join(figures)}</div>'
        f'<figure class="legend">{picture(_wheel(), "colour wheel")}<figcaption>The colour is the direction of the '
        f"motion, its strength the speed: full colours move by {fastest:.1f} pixels, white stands still.</figcaption>"
        "</figure>"
    )


def _wheel(side: int = 192) -> UInt8[np.ndarray, "side side 4"]:
    """The colours of all motions up to full speed, on transparent ground."""
    line = torch.linspace(-1, 1, side)
    motions = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    # Soft at the border: a pixel and a half from full to none.
    opaque = ((1 - motions.norm(dim=0)) * side / 3).clamp(0, 1) * 255
    return np.dstack([flow_to_image(motions, max_motion=1.0), opaque.numpy().astype(np.uint8)])


def joined(prediction: video.Prediction) -> UInt8[np.ndarray, "frames height width 3"]:
    """The video that went in, left, and the one that came out, right; small ones are enlarged."""
    both = np.concatenate([prediction.frames, prediction.rebuilt_frames], axis=2)
    scale = max(1, _VIDEO_HEIGHT // both.shape[1])
    return both.repeat(scale, axis=1).repeat(scale, axis=2)


def rebuilt_video(prediction: video.Prediction, mp4: bytes, original_wav: bytes, rebuilt_wav: bytes) -> str:
    """Shows a video and how the model rebuilt it: players, both sounds as curves, a strip of each clip.

    Args:
        mp4: of the `joined` frames and the rebuilt sound.
        original_wav: the sound that went in.
        rebuilt_wav: the sound that came out.
    """
    frame = joined(prediction)[0]
    clips = len(prediction.classes)
    strips = zip(
        *(np.split(frames, clips) for frames in (prediction.frames, prediction.rebuilt_frames)),
        prediction.classes,
        strict=True,
    )
    rows = (
        f'<div class="clip"><div>{picture(np.concatenate(original, axis=1), f"frames of clip {number}")}'
        f"{picture(np.concatenate(rebuilt, axis=1), f'clip {number} rebuilt')}</div>{bars(classes)}</div>"
        for number, (original, rebuilt, classes) in enumerate(strips, start=1)
    )
    return (
        f'<figure class="player"><video controls loop playsinline preload="metadata" width="{frame.shape[1]}" '
        f'height="{frame.shape[0]}" poster="{data_url("image/png", png(frame))}" src="{data_url("video/mp4", mp4)}">'
        "</video><figcaption>Left what went in, right what came out, with its sound.</figcaption></figure>"
        '<h3>Sound</h3><div class="sounds">'
        f"{_sound('What went in', original_wav)}{_sound('What came out', rebuilt_wav)}</div>"
        f"{_waves(prediction)}<h3>Clip by clip</h3>{''.join(rows)}"
    )


def _sound(caption: str, wav: bytes) -> str:
    return (
        f'<figure><audio controls loop preload="metadata" aria-label="{caption}" src="{data_url("audio/wav", wav)}">'
        f"</audio><figcaption>{caption}</figcaption></figure>"
    )


def _waves(prediction: video.Prediction) -> str:
    """Draws the first moments of both sounds."""
    curves = (("original", prediction.sound[:, 0]), ("rebuilt", prediction.rebuilt_sound[:, 0]))
    lines = (
        f'<polyline class="{name}" points="'
        + " ".join(f"{place},{40 - 38 * float(value):.1f}" for place, value in enumerate(samples[:_WAVE_SAMPLES]))
        + '"/>'
        for name, samples in curves
    )
    seconds = _WAVE_SAMPLES / prediction.sample_rate
    return (
        f'<figure class="player"><svg viewBox="0 0 {_WAVE_SAMPLES - 1} 80" preserveAspectRatio="none" role="img" '
        f'aria-label="Both sounds as curves">{"".join(lines)}</svg><figcaption><span class="key"></span>in '
        f'<span class="key dashed"></span>out, the first {1000 * seconds:.0f} milliseconds</figcaption></figure>'
    )
