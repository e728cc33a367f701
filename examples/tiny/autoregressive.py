"""The small model that continues text, which learns from the prose that ships with Python."""

import argparse
import dataclasses

from perceiver_io import PerceiverARConfig
from perceiver_io.training import Recipe
from perceiver_io.training.tasks import Material, TinyRun, autoregressive

from .prose_corpora import DATA, read_prose_corpora

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
    corpora, description = read_prose_corpora(arguments, lambda prose: prose.held_out, "held out", rows_apart=True)
    return autoregressive.material(config, corpora, description)


TASK = dataclasses.replace(
    autoregressive.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data=DATA),
)
