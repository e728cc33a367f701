"""`perceiver-io demo`: the page holds everything, and is sound HTML. What it looks like is checked by eye."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.commands.cli import main
from perceiver_io.commands.demo import _check_kept, describe
from perceiver_io.media import load_image, read_audio, read_flo, read_video

VOID = {"br", "img", "meta"}


class Page(HTMLParser):
    """The elements of a page, having checked that they are nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the demo writes, and its JSON beside that."""
    directory = tmp_path_factory.mktemp("demo") / "new" / "here"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        assert main(["demo", "--output", str(directory), "--json"]) == 0
    (directory.parent / "result.json").write_text(printed[-1])
    return directory


@pytest.fixture(scope="module")
def page(demo: Path) -> Page:
    return Page((demo / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result(demo: Path) -> dict[str, Any]:
    return json.loads((demo.parent / "result.json").read_text())


def test_json_holds_all_five_tasks(demo: Path, result: dict[str, Any]) -> None:
    assert result["page"] == str(demo / "index.html")
    assert set(result["files"]) == {str(file) for file in demo.iterdir()}
    assert len(result["text"]["masked_bytes"]) == len("thatreturnsthe")
    continuation = result["continuation"]
    first = [byte[0]["name"] for byte in continuation["bytes"]]
    assert continuation["likeliest"] == "".join({"␣": " ", "\\n": "\n"}.get(name, name) for name in first)
    assert len(continuation["likeliest"]) == 80 and len(set(continuation["others"])) == 2
    assert len(result["images"]) == 6
    assert result["flow"]["end_point_error"] >= 0
    assert len(result["video"]["clips"]) == 4


def test_the_files_can_be_read(demo: Path) -> None:
    assert read_flo(demo / "flow.flo").shape[0] == 2
    assert len(read_video(demo / "video.mp4", (32, 32))) == 32
    assert len(read_audio(demo / "video.wav")) == pytest.approx(1.28 * 48_000, rel=0.01)
    assert (demo / "text.txt").read_text(encoding="utf-8").startswith("masked: ")
    for name in ("text.png", "flow.png", *(f"image_{number}.png" for number in range(1, 7))):
        assert load_image(demo / name).size


def test_the_page_holds_everything(demo: Path, page: Page) -> None:
    sources = [attributes["src"] or "" for attributes in page.named("img", "video", "audio")]
    assert len(page.named("img")) == 6 + 4 + 1 + 8
    assert len(page.named("video")) == 1
    assert len(page.named("audio")) == 2
    for source in sources:
        kind, content = source.removeprefix("data:").split(";base64,")
        assert kind in ("image/png", "video/mp4", "audio/wav")
        assert base64.b64decode(content, validate=True)
    assert not page.named("script", "link", "iframe", "object")
    text = (demo / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|\son\w+=", re.sub(r"base64,[\w+/=]+", "", text))
    assert len(text) < 3_000_000
    # Nothing of the template is left.
    assert "$" not in re.sub(r"base64,[\w+/=]+", "", text)


def test_the_page_can_be_used_by_all(page: Page) -> None:
    assert page.named("html")[0]["lang"] == "en"
    assert all(attributes.get("alt") for attributes in page.named("img"))
    assert all(attributes.get("width") and attributes.get("height") for attributes in page.named("img", "video"))
    assert all("controls" in attributes and "autoplay" not in attributes for attributes in page.named("video", "audio"))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for attributes in page.named("a", "section"):
        target = attributes.get("aria-labelledby") or (attributes.get("href") or "").removeprefix("#")
        assert target in names or "." in target
    for attributes in page.named("div"):
        assert ("tabindex" in attributes) == (attributes.get("role") == "region")
    assert "prefers-color-scheme: dark" in page.text


def test_links_lead_to_the_files(demo: Path, page: Page) -> None:
    files = {attributes["href"] for attributes in page.named("a") if not (attributes["href"] or "").startswith("#")}
    assert files == {file.name for file in demo.iterdir()} - {"index.html"}


def test_it_says_where(demo: Path, result: dict[str, Any]) -> None:
    assert describe(result) == f"wrote {demo / 'index.html'} and 13 files beside it; open it in a browser"


def test_a_place_that_is_taken(error_of: Callable[..., str]) -> None:
    Path("taken").write_text("a file where the directory should be")
    assert "taken" in error_of("demo", "--output", "taken")
    assert "cannot use --device abacus" in error_of("demo", "--device", "abacus")
    assert "unrecognized arguments: surplus" in error_of("demo", "surplus")


def test_only_pages_of_the_demo_are_replaced(
    demo: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "video.wav").write_text("mine")
    assert "video.wav is there already, and no demo wrote it" in error_of("demo", "--output", site)
    (site / "index.html").write_text("<title>My site</title>")
    assert "index.html is there already, and no demo wrote it" in error_of("demo", "--output", site)
    assert (site / "video.wav").read_text() == "mine"
    _check_kept(demo, [file.name for file in demo.iterdir()])
