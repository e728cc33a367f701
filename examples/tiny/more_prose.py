"""Writes the prose of documentation as JSON lines, one for each document, to learn from beside the prose of Python.

python -m examples.tiny.more_prose FOLDER ... --output FILE

A document is a Python file, of which the docstrings are taken, or one of reStructuredText (`.rst`, `.rst.txt`), in any
of the folders. A paragraph is left out if it is one of the prose that ships with Python, or another's, and also if it
has five words in a row in common with any document that is held out of that prose, markup aside: figures of those stay
comparable, for models that learn with the Python that the prose is gathered with.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from perceiver_io.atomic import new_file

from .python_prose import LEFT_OUT, Prose, docstrings, prose_paragraphs, python_prose, runs_of_words, words_of

# ":func:`~os.path.join`", ":ref:`this section <name>`", "``code``" and "`name`", of which the text stays.
_MARKUP = re.compile(r"(?::[\w:+-]+:)?``?~?([^`<]*?)(?:\s*<[^>`]*>)?``?_{0,2}")


def more_prose(folders: Iterable[Path], prose: Prose) -> list[str]:
    """Gathers prose beside that of Python.

    Args:
        folders: of Python files and of reStructuredText.
        prose: whose paragraphs are left out, and whose held-out documents share no five words in a row with what stays.

    Returns:
        Documents, each a paragraph a line; in an order that mixes the folders.
    """
    known = {_key(paragraph) for paragraph in _paragraphs([*prose.training, *prose.held_out])}
    held_out = {run for paragraph in _paragraphs(prose.held_out) for run in runs_of_words(paragraph)}
    documents = []
    texts = ((path.relative_to(folder.parent).as_posix(), path) for folder in folders for path in _files(folder))
    for _, path in sorted(texts, key=lambda text: hashlib.sha256(os.fsencode(text[0])).digest()):
        paragraphs = []
        for paragraph in (paragraph for text in _texts(path) for paragraph in prose_paragraphs(plain_text(text))):
            if _key(paragraph) not in known and not runs_of_words(paragraph) & held_out:
                known.add(_key(paragraph))
                paragraphs.append(paragraph)
        if paragraphs:
            documents.append("\n".join(paragraphs))
    return documents


def _paragraphs(documents: Iterable[str]) -> Iterator[str]:
    """The paragraphs of documents, as they are and without markup."""
    for document in documents:
        yield from document.splitlines()
        yield from map(plain_text, document.splitlines())


def plain_text(text: str) -> str:
    """Maps reStructuredText to what is read of it: roles and backquotes go."""
    return _MARKUP.sub(r"\1", text)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        is_document = path.name.endswith((".py", ".rst", ".rst.txt")) and path.is_file()
        if is_document and not LEFT_OUT & set(path.relative_to(folder).parts):
            yield path


def _texts(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return docstrings(text) if path.suffix == ".py" else [text]


def _key(paragraph: str) -> str:
    return " ".join(words_of(paragraph))


def main(argv: Sequence[str] | None = None) -> None:
    """Gathers, writes the file, and says how much there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of packages or documentation")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a new file, as prose.jsonl")
    arguments = parser.parse_args(argv)
    for folder in arguments.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder; name one that has Python files or reStructuredText")
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists; choose another --output")
    documents = more_prose(arguments.folders, python_prose())
    if not documents:
        parser.error("the folders hold no prose that is new; name some with Python files or reStructuredText")
    with new_file(arguments.output) as path:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    print(f"{len(documents):,} documents, {sum(map(len, documents)):,} characters: {arguments.output}")


if __name__ == "__main__":
    main()
