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
        arguments: with `data`, sources as `read_corpora` takes them, of which one may be `python-prose`; None for that
            alone.
        held_out: the documents of the prose that are not learned from.
        use: what those are for.
        rows_apart: see `read_documents`.

    Raises:
        ValueError, OSError, ImportError: see `read_corpora`.
    """

    def own() -> Corpus:
        prose = python_prose()
        learned, others = ([text.encode() for text in part] for part in (prose.training, held_out(prose)))
        note = f"prose that ships with Python, SHA-256 {prose.digest}; other documents are {use}"
        return Corpus(name=PROSE, learned=learned, held_out=others, note=note)

    if arguments.data is None:
        corpus = own()
        return [corpus], corpus.note
    corpora = read_corpora(arguments.data, arguments.text_column, rows_apart=rows_apart, at_hand={PROSE: own})
    return corpora, describe_corpora(arguments.data, corpora)
