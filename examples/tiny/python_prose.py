"""English prose that ships with Python: a small corpus that is there wherever Python is, under Python's own licence.

Docstrings of the standard library (those of C modules too) and of the packages that `ensurepip` brings, the language
reference that `help()` prints, licences, and the documentation of IDLE. Nothing is downloaded. The text depends on the
version of Python and on what its distributor left out, so that whoever trains on it should record `Prose.digest`.
"""

import ast
import hashlib
import html
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

# Folders of the standard library that are not part of it, or are left out by distributors; of packages, their tests.
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "pydoc_data"}
_TEXT_FILES = ("LICENSE.txt", "idlelib/*.txt", "idlelib/help.html", "lib2to3/*.txt", "email/*.rst")

_MIN_WORDS = 6
_MIN_PLAIN_SHARE = 0.85
# A word as prose has it: letters, perhaps an apostrophe, punctuation around. Not names_like_this or f(x).
_PLAIN_WORD = re.compile(r"[(\"']?[A-Za-z]?[a-z]*(?:'[a-z]+)?[.,;:!?)\"']*")

# A held-out paragraph is dropped if this share of its runs of 5 words occurs in the training text.
_RUN_LENGTH = 5
_MAX_KNOWN_SHARE = 0.5


class Prose(NamedTuple):
    """Documents, each a paragraph a line, to learn from, to choose by, and to be evaluated on.

    Attributes:
        training: documents to learn from.
        held_out: other documents, without the paragraphs that occur, or nearly so, in the training text; every second
            of them is for choosing (`validation`), and figures are of the rest (`test`).
    """

    training: list[str]
    held_out: list[str]

    @property
    def validation(self) -> list[str]:
        """Documents by which a recipe is chosen, and how long it runs."""
        return self.held_out[1::2]

    @property
    def test(self) -> list[str]:
        """Documents by which nothing is chosen."""
        return self.held_out[::2]

    @property
    def digest(self) -> str:
        """Tells this text from that of another Python: a SHA-256 in hexadecimal."""
        return hashlib.sha256("\0".join([*self.training, "", *self.held_out]).encode()).hexdigest()


def python_prose(held_out_percent: int = 6) -> Prose:
    """Gathers the prose that ships with the running Python; the same for the same installation.

    A document is a module, a topic of the reference or a text file. Its name decides whether it is held out.

    Args:
        held_out_percent: of the documents.
    """
    known: set[str] = set()
    training: list[list[str]] = []
    held_out: list[list[str]] = []
    for name, texts in sorted(_documents().items()):
        paragraphs = []
        for paragraph in (paragraph for text in texts for paragraph in prose_paragraphs(text)):
            words = " ".join(words_of(paragraph))
            if words not in known:
                known.add(words)
                paragraphs.append(paragraph)
        is_held_out = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < held_out_percent
        (held_out if is_held_out else training).append(paragraphs)
    runs = {run for paragraphs in training for paragraph in paragraphs for run in runs_of_words(paragraph)}
    held_out = [
        [p for p in paragraphs if _share(runs_of_words(p), runs) <= _MAX_KNOWN_SHARE] for paragraphs in held_out
    ]
    return Prose(*(["\n".join(document) for document in part if document] for part in (training, held_out)))


def prose_paragraphs(text: str) -> Iterator[str]:
    """Maps a text to its paragraphs of prose, each on one line: no code, tables or lists of names."""
    for block in re.split(r"\n\s*\n", text):
        words = block.split()
        plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
        if len(words) >= _MIN_WORDS and plain >= _MIN_PLAIN_SHARE * len(words) and ">>>" not in words:
            yield " ".join(words)


def docstrings(source: str) -> list[str]:
    """Maps Python source to its docstrings, in order; to none if it is source of another Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes and the like
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    found = [(node.body[0].lineno, doc) for node in nodes if (doc := ast.get_docstring(node))]
    return [doc for _, doc in sorted(found)]


def _documents() -> dict[str, list[str]]:
    """Gathers documents by name, each as its texts."""
    library = Path(sysconfig.get_path("stdlib"))
    documents = {f"topic {name}": [text] for name, text in _topics()}
    for path in library.rglob("*.py"):
        relative = path.relative_to(library)
        if not LEFT_OUT & set(relative.parts):
            documents[relative.as_posix()] = docstrings(path.read_text(encoding="utf-8", errors="replace"))
    for pattern in _TEXT_FILES:
        for path in library.glob(pattern):
            text = path.read_text(encoding="utf-8", errors="replace")
            if path.suffix == ".html":
                text = html.unescape(re.sub(r"<[^>]*>", "", text))
            documents[path.relative_to(library).as_posix()] = [text]
    for path in library.glob("ensurepip/_bundled/*.whl"):
        documents.update(_wheel(path))
    return documents | _documents_of_compiled_modules(sys.stdlib_module_names)


def _topics() -> Iterable[tuple[str, str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # a distributor may leave it out
        return ()
    return topics.items()


def _wheel(path: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(path) as wheel:
        texts = {name: wheel.read(name).decode("utf-8", "replace") for name in wheel.namelist()}
    licences = {name: [text] for name, text in texts.items() if "LICENSE" in name}
    return {name: docstrings(text) for name, text in texts.items() if name.endswith(".py")} | licences


def _documents_of_compiled_modules(names: Iterable[str]) -> dict[str, list[str]]:
    """The docstrings of those of the modules that are there and written in C, which have to be imported for it."""
    documents = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is deprecated
        for name in names:
            try:
                spec = importlib.util.find_spec(name)
                origin = (spec.origin if spec else None) or ""
                if origin == "built-in" or origin.endswith(tuple(EXTENSION_SUFFIXES)):
                    documents[f"compiled {name}"] = _member_docstrings(importlib.import_module(name))
            except (ImportError, ValueError):  # not on this system
                continue
    return documents


def _member_docstrings(module: ModuleType) -> list[str]:
    """The docstrings of a module, its functions and classes, and their methods, by name."""
    found = [module.__doc__]
    for _, member in sorted(vars(module).items()):
        if inspect.isclass(member):
            found += [member.__doc__, *(attribute.__doc__ for _, attribute in sorted(vars(member).items()))]
        elif inspect.isroutine(member):
            found.append(member.__doc__)
    return [inspect.cleandoc(doc) for doc in found if isinstance(doc, str)]


def words_of(text: str) -> list[str]:
    """The words by which texts are told apart."""
    return re.findall(r"[a-z0-9]+", text.lower())


def runs_of_words(paragraph: str) -> set[tuple[str, ...]]:
    """The runs of words that tell a paragraph from others; all of it where it is shorter."""
    words = words_of(paragraph)
    return {tuple(words[start : start + _RUN_LENGTH]) for start in range(max(1, len(words) - _RUN_LENGTH + 1))}


def _share(runs: set[tuple[str, ...]], known: set[tuple[str, ...]]) -> float:
    return len(runs & known) / len(runs)
