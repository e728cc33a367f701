"""The small language model, which learns from the prose that ships with Python."""

import argparse
import dataclasses

from perceiver_io import LanguageConfig
from perceiver_io.training import Recipe
from perceiver_io.training.tasks import Material, TinyRun, language

from .local_language_start import start_like_a_convolution
from .prose_corpora import DATA, read_prose_corpora

CONFIG = LanguageConfig(
    max_seq_len=128,
    embed_channels=128,
    num_latents=64,
    num_latent_channels=224,
    num_self_attends_per_block=5,
    num_self_attend_heads=4,
    num_cross_attend_heads=4,
    num_decoder_heads=4,
    qk_channels=64,
)
RECIPE = Recipe(
    num_steps=11_000, batch_size=64, learning_rate=2e-3, weight_decay=0.01, optimizer="muon", lead_steps=200
)
# With more words to find, a window teaches more; with few, it is as in use.
MASKED = (0.15, 0.6)


def prepare(arguments: argparse.Namespace, config: LanguageConfig) -> Material:
    """Maps `--data`, or Python's prose, to what the small model learns from."""
    corpora, description = read_prose_corpora(arguments, lambda prose: prose.validation, "for validation")
    material = language.material(config, corpora, description, arguments.workers, masked=MASKED)
    return dataclasses.replace(material, initialise=start_like_a_convolution)


TASK = dataclasses.replace(
    language.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data=DATA),
)
