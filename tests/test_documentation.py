"""What the documents say: their code runs, their commands are understood, and the files that they name exist."""

import argparse
import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "pytorch_checkpoints/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("conversion/*.md")),
]
NOTEBOOKS = sorted(ROOT.glob("examples/notebooks/*.ipynb"))
# What is not ours to check.
_OTHERS = {"make", "pip", "git", "curl", "cd", "mkdocs"}


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def _commands() -> list[tuple[str, list[str]]]:
    """The documents' commands, with the document's name."""
    found = []
    for document in DOCUMENTS:
        text = "\n".join(_blocks(document, "sh")).replace("\\\n", " ")
        inline = re.findall(r"`((?:perceiver-io|python|torchrun) [^`]+)`", document.read_text(encoding="utf-8"))
        for line in [*text.splitlines(), *inline]:
            words = shlex.split(" ".join(line.split()), comments=True)
            if len(words) > 2 and words[0] not in _OTHERS:
                found.append((document.name, words))
    return found


def test_code_of_the_readme_gives_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in _blocks(ROOT / "README.md", "python"):
        exec(block, namespace)
    assert namespace["logits"].shape == (1, 60, 262)
    assert namespace["depth"].shape == (2, 48 * 64, 1)
    assert namespace["few"].shape == (2, 3, 1)


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_code_of_the_documentation_runs(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in _blocks(document, "python"):
        exec(block, namespace)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_offline(notebook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs"), "notebooks are kept without outputs"
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)


class _UnderstoodError(Exception):
    """The command line was parsed."""


@pytest.mark.parametrize(("document", "words"), _commands(), ids=lambda value: " ".join(value)[:60])
def test_commands_are_understood(document: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *arguments: Any, **options: Any) -> NoReturn:
        parse_args(self, *arguments, **options)
        raise _UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.chdir(ROOT)
    if words[0] == "srun":
        words = words[1:]
    if words[0] == "torchrun":
        start = words.index("-m") if "-m" in words else words.index("--nproc-per-node") + 2
        words = ["python", *words[start:]]
    with pytest.raises((_UnderstoodError, SystemExit)) as ended:
        if words[0] == "perceiver-io":
            from perceiver_io.commands.cli import main

            main(words[1:])
        else:
            assert words[0] == "python"
            if words[1:3] == ["-m", "perceiver_io"]:
                from perceiver_io.commands.cli import main

                main(words[3:])
            if words[1] == "-m":
                monkeypatch.setattr(sys, "argv", words[2:])
                monkeypatch.delitem(sys.modules, words[2], raising=False)  # where another test has imported it
                runpy.run_module(words[2], run_name="__main__")
            monkeypatch.setattr(sys, "argv", words[1:])
            monkeypatch.syspath_prepend(str(ROOT / words[1]).rsplit("/", 1)[0])
            runpy.run_path(words[1], run_name="__main__")
    assert isinstance(ended.value, _UnderstoodError) or ended.value.code == 0, "only --help may end so"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
