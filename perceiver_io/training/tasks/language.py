"""Training of models that fill in the hidden words of a text, byte by byte."""

import argparse
from collections.abc import Sequence

from perceiver_io.models import LanguageConfig
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.data.text import Document, TextWindows, read_documents, split_documents
from perceiver_io.training.language import (
    MaskedLanguageEvaluation,
    MaskedLanguageObjective,
    MaskedWords,
    most_frequent_byte,
)
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.tasks.task import Material, Task

# As for GLUE in the paper, whose rates lie between 1e-5 and 1e-4.
FINE_TUNING_RECIPE = Recipe(num_steps=10_000, batch_size=32, learning_rate=1e-4, weight_decay=0.01, lead_steps=200)

# The paper's share of masked words, which everything is evaluated with.
MASKED = 0.15


def prepare(arguments: argparse.Namespace, config: LanguageConfig) -> Material:
    """Maps `--data` to windows of its text, the last twentieth of which is held out."""
    learned, held_out = split_documents(read_documents(arguments.data))
    description = f"{arguments.data}; the last twentieth is held out"
    return material(config, learned, held_out, description, arguments.workers)


def material(
    config: LanguageConfig,
    learned: Sequence[Document],
    held_out: Sequence[Document],
    description: str,
    num_workers: int,
    masked: float | tuple[float, float] = MASKED,
) -> Material:
    """Maps documents to learn from and others, held out, to what a run needs.

    Args:
        masked: share of the words that are hidden in training; see `MaskedWords`.
    """
    windows = TextWindows(learned, config.max_seq_len)
    held_out_windows = TextWindows(held_out, config.max_seq_len, random_positions=False)
    usable, held_out_usable = SkipUnusable(windows), SkipUnusable(held_out_windows)
    return Material(
        config=config,
        dataset=MaskedWords(usable, masked),
        objective=MaskedLanguageObjective(),
        evaluate=MaskedLanguageEvaluation(
            dataset=MaskedWords(held_out_usable, MASKED),
            most_frequent=most_frequent_byte(MaskedWords(usable, MASKED)),
            num_workers=num_workers,
        ),
        description=f"{description} ({windows.num_bytes:,} and {held_out_windows.num_bytes:,} bytes)",
        skipping=(usable, held_out_usable),
    )


TASK = Task(
    name="language",
    description="Trains a model that fills in the hidden words of a text, byte by byte.",
    presets=["language"],
    config_class=LanguageConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data='text files, jsonl or Parquet (column "text"): one, or a folder; the last twentieth of the text is held out',
    prepare=prepare,
)
