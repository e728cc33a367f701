"""The page that `perceiver-io demo` writes: one file, with everything in it."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources
from itertools import groupby
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.commands import mlm, video
from perceiver_io.media import flow_to_image
from perceiver_io.optional import needs_extra
from perceiver_io.processors import BytesTokenizer, ClassProbability

_CLASSES_SHOWN = 3
_WAVE_SAMPLES = 200
_VIDEO_HEIGHT = 256
# Pictures below so many pixels are enlarged without blurring.
_SMALL = 64


class Section(NamedTuple):
    """A task's part of the page.

    Attributes:
        anchor: its name in the address.
        title: its heading.
        lead: a description of the result, as HTML.
        body: the result, as HTML.
        facts: about the model and the files, as HTML.
    """

    anchor: str
    title: str
    lead: str
    body: str
    facts: str


def page(summary: str, sections: Sequence[Section], examples: Sequence[str], versions: str) -> str:
    """Joins sections to the whole page.

    Args:
        summary: of what was done.
        examples: lines for the shell.
        versions: of what computed it.
    """
    template = resources.files("perceiver_io.commands").joinpath("demo.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        summary=escape(summary),
        links="".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections),
        sections="\n".join(
            f'<section id="{one.anchor}" aria-labelledby="{one.anchor}-title">\n'
            f'<h2 id="{one.anchor}-title">{escape(one.title)}</h2>\n<p class="lead">{one.lead}</p>\n'
            f'{one.body}\n<p class="facts">{one.facts}</p>\n</section>'
            for one in sections
        ),
        examples=escape("\n".join(examples)),
        versions=escape(versions),
    )


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
    heads = "".join(f'<th scope="col">{byte.position}</th>' for byte in prediction.text.masked_bytes)
    rows = zip(*(byte.candidates for byte in prediction.text.masked_bytes), strict=True)
    cells = "".join(f"<tr>{''.join(map(_candidate, row))}</tr>" for row in rows)
    return (
        f'<p class="quote">{"".join(before)}</p>\n<p class="quote">{"".join(after)}</p>\n'
        '<figure><figcaption id="candidates">Each hidden byte, by its place in the text, and the likeliest candidates'
        '</figcaption><div class="scroll" tabindex="0" role="region" aria-labelledby="candidates">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table></div></figure>"
    )


def _candidate(candidate: ClassProbability) -> str:
    name, share = candidate
    return f'<td style="--share:{share:.3f}"><b>{escape(name)}</b>{share:.0%}</td>'


def classified_pictures(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], predictions: Sequence[Sequence[ClassProbability]]
) -> str:
    """Shows pictures and their likeliest classes."""
    cards = (
        f'<div class="card">{_picture(picture, f"picture {number}")}{_bars(classes)}</div>'
        for number, (picture, classes) in enumerate(zip(pictures, predictions, strict=True), start=1)
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _bars(classes: Sequence[ClassProbability]) -> str:
    """Shows the likeliest classes as a list with bars."""
    items = (
        f'<li><span class="name">{escape(name)}</span><span class="share">{share:.1%}</span>'
        f'<span class="bar" style="--share:{share:.3f}"></span></li>'
        for name, share in classes[:_CLASSES_SHOWN]
    )
    return f'<ol class="bars">{"".join(items)}</ol>'


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
        f"<figure>{_picture(pixels, caption.lower())}<figcaption>{caption}</figcaption></figure>"
        for pixels, caption in panels
    )
    return (
        f'<div class="panels">{"".join(figures)}</div>'
        f'<figure class="legend">{_picture(_wheel(), "colour wheel")}<figcaption>The colour is the direction of the '
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
        f'<div class="clip"><div>{_picture(np.concatenate(original, axis=1), f"frames of clip {number}")}'
        f"{_picture(np.concatenate(rebuilt, axis=1), f'clip {number} rebuilt')}</div>{_bars(classes)}</div>"
        for number, (original, rebuilt, classes) in enumerate(strips, start=1)
    )
    return (
        f'<figure class="player"><video controls loop playsinline preload="metadata" width="{frame.shape[1]}" '
        f'height="{frame.shape[0]}" poster="{_data("image/png", _png(frame))}" src="{_data("video/mp4", mp4)}">'
        "</video><figcaption>Left what went in, right what came out, with its sound.</figcaption></figure>"
        '<h3>Sound</h3><div class="sounds">'
        f"{_sound('What went in', original_wav)}{_sound('What came out', rebuilt_wav)}</div>"
        f"{_waves(prediction)}<h3>Clip by clip</h3>{''.join(rows)}"
    )


def _sound(caption: str, wav: bytes) -> str:
    return (
        f'<figure><audio controls loop preload="metadata" aria-label="{caption}" src="{_data("audio/wav", wav)}">'
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


def _picture(pixels: UInt8[np.ndarray, "height width channels"], alt: str) -> str:
    height, width = pixels.shape[:2]
    kind = ' class="pixels"' if height < _SMALL else ""
    return f'<img{kind} src="{_data("image/png", _png(pixels))}" alt="{alt}" width="{width}" height="{height}">'


def _png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    with needs_extra("writing pictures"):
        from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _data(kind: str, content: bytes) -> str:
    """Maps content to an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
