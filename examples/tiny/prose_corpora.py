"""What the small models of text learn from: the prose that ships with Python, alone or among other texts."""

import argparse
from collections.abc import Callable

from perceiver_io.training.data.corpora import Corpus, describe_corpora, read_corpora

from .python_prose import Prose, python_prose

PROSE = "python-prose"
DATA = f"the English prose that ships with Python, which {PROSE} also names among others: {PROSE}:0.5 more.jsonl:0.5"


def read_prose_corpora(
    arguments: argparse.Namespace, held_out: Callable[[Prose], list[str]], use: str, *, rows_apart: bool = False
) -> tuple[list[Corpus], str]:
    """Maps `--data` to corpora and to what is said of them in the notes of a run.

    Args:
        arguments: with `data`, sources as `read_corpora` takes them, of which one may be `python-prose`; None for that.
        held_out: the documents of the prose that are not learned from.
        use: what those are for.
        rows_apart: see `read_documents`.

    Raises:
        ValueError, OSError, ImportError: see `read_corpora`.
    """
    sources = arguments.data or [PROSE]
    at_hand, notes = {}, [describe_corpora(arguments.data)] if arguments.data else []
    if any(PROSE in source for source in sources):
        prose = python_prose()
        learned, others = ([text.encode() for text in part] for part in (prose.training, held_out(prose)))
        at_hand[PROSE] = Corpus(name=PROSE, learned=learned, held_out=others)
        notes.append(f"prose that ships with Python, SHA-256 {prose.digest}; other documents are {use}")
    return read_corpora(sources, arguments.text_column, rows_apart=rows_apart, at_hand=at_hand), "; ".join(notes)
