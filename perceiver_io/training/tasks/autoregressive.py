"""Training of models that continue a text, byte by byte (Perceiver AR)."""

import argparse
from collections.abc import Sequence

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.training.autoregressive import NextTokenEvaluation, NextTokenObjective, SequenceWindows
from perceiver_io.training.data.text import Document, read_documents, split_documents
from perceiver_io.training.recipes import FlatThenCosineRecipe
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
    """Maps `--data` to windows of its documents, the last twentieth of which is held out."""
    learned, held_out = split_documents(read_documents(arguments.data))
    return material(config, learned, held_out, f"{arguments.data}; the last twentieth is held out")


def material(
    config: PerceiverARConfig, learned: Sequence[Document], held_out: Sequence[Document], description: str
) -> Material:
    """Maps documents to learn from and others, held out, to what a run needs.

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
    windows = SequenceWindows(learned, config.max_context_length + 1, config.num_latents + 1)
    num_held_out = sum(map(len, held_out))
    return Material(
        config=config,
        dataset=windows,
        objective=NextTokenObjective(),
        evaluate=NextTokenEvaluation(documents=held_out),
        description=f"{description} ({windows.num_bytes:,} and {num_held_out:,} bytes)",
    )


TASK = Task(
    name="autoregressive",
    description="Trains a model that continues a text, byte by byte.",
    presets=["ar-default", "ar-copy-131k"],
    config_class=PerceiverARConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data='text files, each a document, jsonl or Parquet (column "text"): one, or a folder; the last twentieth '
    "of the text is held out",
    prepare=prepare,
)
