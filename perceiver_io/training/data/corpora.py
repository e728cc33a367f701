"""Corpora: texts to learn from with others that are held out, one or several with shares."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from perceiver_io.training.data.hub_datasets import HUB_PREFIX
from perceiver_io.training.data.text import Document, read_documents, split_documents
from perceiver_io.training.data.text_rows import TEXT_COLUMN
from perceiver_io.training.mixtures import check_shares


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts of one kind.

    Args:
        name: for figures and messages.
        learned: documents to learn from.
        held_out: others.
        share: of the examples of a run.
        note: for the notes of a run, which others are held out.
    """

    name: str
    learned: Sequence[Document]
    held_out: Sequence[Document]
    share: float = 1.0
    note: str = "the last twentieth is held out"


def read_corpora(
    sources: Sequence[str],
    column: str = TEXT_COLUMN,
    *,
    rows_apart: bool = False,
    at_hand: Mapping[str, Callable[[], Corpus]] | None = None,
) -> list[Corpus]:
    """Maps sources to corpora, of each of which the last twentieth is held out if it is read.

    Args:
        sources: each is `PATH`, or `NAME=PATH:SHARE`, in which the name may be left out, and the share of an only one.
            A path may also be a data set of Hugging Face's; see `read_documents`.
        column: see `read_documents`.
        rows_apart: see `read_documents`.
        at_hand: makes corpora, by names that may be given as paths; a file or folder of the name is that.

    Raises:
        ValueError: for a share that is missing, shares that are not numbers above 0 which add up to 1, two corpora of
            one name, or a text of a few bytes.
        OSError, ImportError: see `read_documents`.
    """
    named = [_parts(source) for source in sources]
    _check(named)
    corpora = []
    for name, path, share in named:
        if at_hand and path in at_hand and not Path(path).exists():
            corpora.append(replace(at_hand[path](), name=name, share=share or 1.0))
            continue
        learned, held_out = split_documents(read_documents(path, column, rows_apart=rows_apart))
        if not held_out:
            raise ValueError(f"{path} has too little text for a twentieth to be held out; give more")
        corpora.append(Corpus(name=name, learned=learned, held_out=held_out, share=share or 1.0))
    return corpora


def describe_corpora(sources: Sequence[str], corpora: Sequence[Corpus]) -> str:
    """Maps sources, and what was read from them, to what is said of the data in the notes of a run."""
    notes = {corpus.name: corpus.note for corpus in corpora}
    if len(set(notes.values())) == 1:
        return f"{' '.join(sources)}; {corpora[0].note}"
    return "; ".join([" ".join(sources), *(f"{name}: {note}" for name, note in notes.items())])


@contextmanager
def naming(corpus: Corpus) -> Iterator[None]:
    """Gives errors within the block the name of the corpus that they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{corpus.name}: {error}") from error


_NAMED = re.compile(r"([\w.-]+)=(.+)")


def _parts(source: str) -> tuple[str, str, float | None]:
    """The name, the path and the share of a source. A file that is called as the whole source is that file."""
    path, share = source, None
    if not Path(path).exists():
        start, _, end = path.rpartition(":")
        with suppress(ValueError):
            path, share = start, float(end)
    if not Path(path).exists() and (match := _NAMED.fullmatch(path)):
        return match[1], match[2], share
    return _usual_name(path), path, share


def _usual_name(path: str) -> str:
    """The folder's or file's name; on the hub, the data set's without its owner and configuration."""
    if not path.startswith(HUB_PREFIX):
        return Path(path).resolve().name
    owner, _, rest = path.removeprefix(HUB_PREFIX).partition(":")[0].partition("/")
    return rest.partition("/")[0] or owner


def _check(corpora: Sequence[tuple[str, str, float | None]]) -> None:
    names = [name for name, _, _ in corpora]
    for name, path, share in corpora:
        if not path:
            raise ValueError("--data names no file or folder; give its path (. is the one that this is run in)")
        if share is None and len(corpora) > 1:
            raise ValueError(f"{path} has no share; each of several texts needs one, as in --data c4:0.7 wikipedia:0.3")
        if names.count(name) > 1:
            raise ValueError(f"two texts are called {name!r}; name one otherwise, as in --data NAME={path}:{share:g}")
    check_shares([1.0 if share is None else share for _, _, share in corpora])
