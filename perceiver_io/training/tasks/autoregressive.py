"""Training of models that continue a text, byte by byte (Perceiver AR)."""

import argparse
from collections.abc import Sequence

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.training.autoregressive import NextTokenEvaluation, NextTokenObjective, SequenceWindows
from perceiver_io.training.data.corpora import Corpus, describe_corpora, naming, read_corpora
from perceiver_io.training.mixtures import mixed, mixed_evaluation
from perceiver_io.training.recipes import FlatThenCosineRecipe
from perceiver_io.training.tasks.language import DATA, add_arguments
from perceiver_io.training.tasks.task import Material, Task

# The reference has none; its optimiser and rate, for as long as a text model is usually trained further.
FINE_TUNING_RECIPE = FlatThenCosineRecipe(
    num_steps=10_000,
    batch_size=32,
    learning_rate=1e-4,
    weight_decay=0.0,
    optimizer="adam",
    lead_steps=200,
    flat_until=200,
)


def prepare(arguments: argparse.Namespace, config: PerceiverARConfig) -> Material:
    """Maps `--data` to windows of its documents, of each of whose texts the last twentieth is held out."""
    corpora = read_corpora(arguments.data, arguments.text_column, rows_apart=True)
    return material(config, corpora, describe_corpora(arguments.data, corpora))


def material(config: PerceiverARConfig, corpora: Sequence[Corpus], description: str) -> Material:
    """Maps corpora to what a run needs.

    Raises:
        ValueError: for a model of something else than bytes, or one that needs positions to be given.
    """
    if (config.vocab_size, config.pad_token) != (ByteSequences.vocab_size, ByteSequences.pad_token):
        raise ValueError(
            f"vocab_size ({config.vocab_size}) and pad_token ({config.pad_token}) must be {ByteSequences.vocab_size} "
            f"and {ByteSequences.pad_token}: text is bytes after padding, end and start"
        )
    if config.num_axes > 1:
        raise ValueError(
            f"position_sizes {config.position_sizes} is that of a model of pictures, and text has positions of one "
            "axis; take another preset"
        )
    learned = []
    for corpus in corpora:
        with naming(corpus):
            learned.append(SequenceWindows(corpus.learned, config.max_context_length + 1, config.num_latents + 1))
    shares = [corpus.share for corpus in corpora]
    num_learned = sum(windows.num_bytes for windows in learned)
    num_held_out = sum(len(document) for corpus in corpora for document in corpus.held_out)
    return Material(
        config=config,
        dataset=mixed(learned, shares),
        objective=NextTokenObjective(),
        evaluate=mixed_evaluation({c.name: NextTokenEvaluation(documents=c.held_out) for c in corpora}, shares),
        description=f"{description} ({num_learned:,} and {num_held_out:,} bytes)",
    )


TASK = Task(
    name="autoregressive",
    description="Trains a model that continues a text, byte by byte.",
    presets=["ar-default", "ar-copy-131k"],
    config_class=PerceiverARConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data=DATA,
    texts=True,
    prepare=prepare,
    add_arguments=add_arguments,
)
