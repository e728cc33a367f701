"""Pages that commands write: one file, with everything in it."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from perceiver_io.optional import needs_extra
from perceiver_io.processors import ClassProbability

_CLASSES_SHOWN = 3
# Pictures below so many pixels are enlarged without blurring.
_SMALL = 64


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        anchor: its name in the address.
        title: its heading.
        lead: a description of the result, as HTML, or none.
        body: the result, as HTML.
        facts: small print at its end, as HTML, or none.
    """

    anchor: str
    title: str
    lead: str
    body: str
    facts: str


def whole_page(title: str, heading: str, summary: str, sections: Sequence[Section], footer: str) -> str:
    """Joins sections to a page.

    Args:
        title: of the window.
        heading: of the page.
        summary: of what was done, as HTML.
        footer: the end of the page, as HTML.
    """
    template = resources.files("perceiver_io.commands").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(title),
        heading=escape(heading),
        summary=summary,
        links="".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections),
        sections="\n".join(
            f'<section id="{one.anchor}" aria-labelledby="{one.anchor}-title">\n'
            f'<h2 id="{one.anchor}-title">{escape(one.title)}</h2>\n{_paragraph("lead", one.lead)}'
            f"{one.body}\n{_paragraph('facts', one.facts)}</section>"
            for one in sections
        ),
        footer=footer,
    )


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{text}</p>\n' if text else ""


def bars(classes: Sequence[ClassProbability]) -> str:
    """Shows the likeliest classes as a list with bars."""
    items = (
        f'<li><span class="name">{escape(name)}</span><span class="share">{share:.1%}</span>'
        f'<span class="bar" style="--share:{share:.3f}"></span></li>'
        for name, share in classes[:_CLASSES_SHOWN]
    )
    return f'<ol class="bars">{"".join(items)}</ol>'


def picture(pixels: UInt8[np.ndarray, "height width channels"], alt: str) -> str:
    """Shows pixels, with a text for who cannot see them."""
    height, width = pixels.shape[:2]
    kind = ' class="pixels"' if height < _SMALL else ""
    source, text = data_url("image/png", png(pixels)), escape(alt, quote=True)
    return f'<img{kind} src="{source}" alt="{text}" width="{width}" height="{height}">'


def png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """Maps pixels to the content of a PNG file."""
    with needs_extra("writing pictures"):
        from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """Maps content to an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
