"""Training of models that fill in the hidden words of a text, byte by byte."""

import argparse
from collections.abc import Sequence

from perceiver_io.models import LanguageConfig
from perceiver_io.training.data.corpora import Corpus, describe_corpora, naming, read_corpora
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.data.text import TextWindows
from perceiver_io.training.data.text_rows import TEXT_COLUMN
from perceiver_io.training.language import (
    MaskedLanguageEvaluation,
    MaskedLanguageObjective,
    MaskedWords,
    most_frequent_byte,
)
from perceiver_io.training.mixtures import mixed, mixed_evaluation
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.tasks.task import Material, Task

# As for GLUE in the paper, whose rates lie between 1e-5 and 1e-4.
FINE_TUNING_RECIPE = Recipe(num_steps=10_000, batch_size=32, learning_rate=1e-4, weight_decay=0.01, lead_steps=200)

# The paper's share of masked words, which everything is evaluated with.
MASKED = 0.15

DATA = (
    "text files, jsonl, Parquet or a saved data set of Hugging Face's, one or a folder, or such a data set by name "
    "(hf:allenai/c4/en:train); several with shares: c4:0.7 wikipedia:0.3; the last twentieth of each is held out"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which column of tables is learned from."""
    parser.add_argument(
        "--text-column", default=TEXT_COLUMN, metavar="NAME", help="the column of tables to learn from (%(default)s)"
    )


def prepare(arguments: argparse.Namespace, config: LanguageConfig) -> Material:
    """Maps `--data` to windows of its texts, of each of which the last twentieth is held out."""
    corpora = read_corpora(arguments.data, arguments.text_column)
    return material(config, corpora, describe_corpora(arguments.data, corpora), arguments.workers)


def material(
    config: LanguageConfig,
    corpora: Sequence[Corpus],
    description: str,
    num_workers: int,
    masked: float | tuple[float, float] = MASKED,
) -> Material:
    """Maps corpora to what a run needs.

    Args:
        masked: share of the words that are hidden in training; see `MaskedWords`.

    Raises:
        ValueError: for a corpus that is shorter than a window.
    """
    learned, held_out = [], []
    for corpus in corpora:
        with naming(corpus):
            learned.append(TextWindows(corpus.learned, config.max_seq_len))
            held_out.append(TextWindows(corpus.held_out, config.max_seq_len, random_positions=False))
    usable, held_out_usable = list(map(SkipUnusable, learned)), list(map(SkipUnusable, held_out))
    shares = [corpus.share for corpus in corpora]
    windows = mixed(usable, shares)
    most_frequent = most_frequent_byte(MaskedWords(windows, MASKED))
    evaluations = {
        corpus.name: MaskedLanguageEvaluation(
            dataset=MaskedWords(own, MASKED), most_frequent=most_frequent, num_workers=num_workers
        )
        for corpus, own in zip(corpora, held_out_usable, strict=True)
    }
    num_learned, num_held_out = (sum(part.num_bytes for part in parts) for parts in (learned, held_out))
    return Material(
        config=config,
        dataset=MaskedWords(windows, masked),
        objective=MaskedLanguageObjective(),
        evaluate=mixed_evaluation(evaluations, shares),
        description=f"{description} ({num_learned:,} and {num_held_out:,} bytes)",
        skipping=[*usable, *held_out_usable],
    )


TASK = Task(
    name="language",
    description="Trains a model that fills in the hidden words of a text, byte by byte.",
    presets=["language"],
    config_class=LanguageConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data=DATA,
    texts=True,
    prepare=prepare,
    add_arguments=add_arguments,
)
