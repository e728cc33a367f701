"""The page that `perceiver-io evaluate` writes: the examples that the model did worst on, as pictures and texts."""

from collections.abc import Sequence
from html import escape
from typing import Any

from perceiver_io.commands.page import Section, bars, picture, whole_page
from perceiver_io.evaluation.protocol import Example


def examples_page(result: dict[str, Any], figures: Sequence[str], examples: Sequence[Example]) -> str:
    """Maps a result and its worst examples to a page.

    Args:
        result: as `results.json` holds it.
        figures: its figures, a line each.
        examples: the worst first.
    """
    summary = "<br>".join(map(escape, [*figures, f"{result['samples']:,} samples: {result['data']['description']}"]))
    sections = [
        Section(f"example-{number}", f"{number}. {example.title}", "", _body(example), "")
        for number, example in enumerate(examples, start=1)
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    footer = (
        f"<p>Command:</p>\n<pre><code>{escape(result['command'])}</code></pre>\n"
        f"<p>Weights {result['weights']['sha256']}<br>Data {result['data']['fingerprint']}<br>{escape(versions)}</p>"
    )
    title = f"{result['protocol']}: what the model did worst on"
    return whole_page(title, title, summary, sections, footer)


def _body(example: Example) -> str:
    pictures = "".join(
        f"<figure>{picture(pixels, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, pixels in example.pictures
    )
    texts = "".join(
        f'<figure><p class="quote">{escape(text)}</p><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, text in example.texts
    )
    panels = f'<div class="panels">{pictures}{bars(example.classes) if example.classes else ""}</div>'
    return panels + (f'<div class="texts">{texts}</div>' if texts else "")
