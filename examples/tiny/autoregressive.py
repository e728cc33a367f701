"""The small model that continues text, which learns from the prose that ships with Python."""

import argparse
import dataclasses

from perceiver_io import PerceiverARConfig
from perceiver_io.training import Recipe
from perceiver_io.training.data.corpora import Corpus, describe_corpora, read_corpora
from perceiver_io.training.tasks import Material, TinyRun, autoregressive

from .python_prose import python_prose

CONFIG = PerceiverARConfig(
    max_context_length=512,
    num_latents=256,
    embed_channels=192,
    num_latent_channels=192,
    num_self_attends=3,
    num_cross_attend_heads=3,
    num_self_attend_heads=3,
    max_wavelength=512,
    rotary_channels_fraction=1.0,
    dropout_prob=0.0,
)
RECIPE = Recipe(num_steps=2000, batch_size=8, learning_rate=2e-3, weight_decay=0.01, optimizer="muon", lead_steps=200)


def prepare(arguments: argparse.Namespace, config: PerceiverARConfig) -> Material:
    """Maps `--data`, or Python's prose, to what the small model learns from."""
    if arguments.data is None:
        prose = python_prose()
        learned, held_out = ([document.encode() for document in part] for part in prose)
        corpora = [Corpus(name="prose", learned=learned, held_out=held_out)]
        description = f"prose that ships with Python, SHA-256 {prose.digest}; other documents are held out"
    else:
        corpora = read_corpora(arguments.data, arguments.text_column, rows_apart=True)
        description = describe_corpora(arguments.data)
    return autoregressive.material(config, corpora, description)


TASK = dataclasses.replace(
    autoregressive.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data="the English prose that ships with Python"),
)
