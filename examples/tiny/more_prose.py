"""Writes the prose of documentation as JSON lines, one for each document, to learn from beside the prose of Python.

python -m examples.tiny.more_prose FOLDER ... --output FILE

A document is a Python file, of which the docstrings are taken, or one of reStructuredText (`.rst`, `.rst.txt`), in any
of the folders. A paragraph is left out if it is one of the prose that ships with Python, or another's, and also if it
has five words in a row in common with any document that is held out of that prose: figures of those stay comparable.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from perceiver_io.atomic import new_file

from .python_prose import LEFT_OUT, Prose, docstrings, prose_paragraphs, python_prose, runs_of_words, words_of

# ":func:`~os.path.join`", ":ref:`this section <name>`", "``code``" and "`name`", of which the text stays.
_MARKUP = re.compile(r"(?::[\w:+-]+:)?``?~?([^`<]*?)(?:\s*<[^>`]*>)?``?_{0,2}")


def more_prose(folders: Iterable[Path], prose: Prose) -> dict[str, str]:
    """Gathers prose beside that of Python.

    Args:
        folders: of Python files and of reStructuredText.
        prose: whose paragraphs are left out, and whose held-out documents share no five words in a row with what stays.

    Returns:
        Documents by name, each a paragraph a line; in an order that mixes the folders.
    """
    known = {_key(paragraph) for document in [*prose.training, *prose.held_out] for paragraph in document.splitlines()}
    held_out = {
        run for document in prose.held_out for paragraph in document.splitlines() for run in runs_of_words(paragraph)
    }
    documents = {}
    texts = ((path.relative_to(folder.parent).as_posix(), path) for folder in folders for path in _files(folder))
    for name, path in sorted(texts, key=lambda text: hashlib.sha256(text[0].encode()).digest()):
        paragraphs = []
        for paragraph in (paragraph for text in _texts(path) for paragraph in prose_paragraphs(plain_text(text))):
            if _key(paragraph) not in known and not runs_of_words(paragraph) & held_out:
                known.add(_key(paragraph))
                paragraphs.append(paragraph)
        if paragraphs:
            documents[name] = "\n".join(paragraphs)
    return documents


def plain_text(text: str) -> str:
    """Maps reStructuredText to what is read of it: roles and backquotes go."""
    return _MARKUP.sub(r"\1", text)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.name.endswith((".py", ".rst", ".rst.txt")) and not LEFT_OUT & set(path.relative_to(folder).parts):
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
    with new_file(arguments.output) as path:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents.values()), encoding="utf-8")
    print(f"{len(documents):,} documents, {sum(map(len, documents.values())):,} characters: {arguments.output}")


if __name__ == "__main__":
    main()
