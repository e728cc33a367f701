"""The small video autoencoder, which learns from moving shapes, each with a tone, that are made up."""

import argparse
import dataclasses
from typing import Any

from perceiver_io import VideoAutoencodingConfig
from perceiver_io.training import Recipe
from perceiver_io.training.tasks import Material, TinyRun, video_autoencoding
from perceiver_io.training.video_autoencoding import VideoAutoencodingEvaluation, VideoAutoencodingObjective

from .moving_shapes import MovingShapes

CONFIG = VideoAutoencodingConfig(
    num_frames=8,
    image_size=(32, 32),
    audio_samples_per_frame=128,
    audio_samples_per_patch=64,
    num_classes=len(MovingShapes.classes),
    num_image_bands=8,
    num_audio_bands=16,
    num_latents=96,
    num_latent_channels=128,
    num_self_attends_per_block=3,
    num_self_attend_heads=4,
    num_cross_attend_heads=4,
    decoder_channels=64,
    label_query_channels=128,
    # So that the number of channels is one that the heads divide.
    input_padding_channels=5,
)
RECIPE = Recipe(
    num_steps=12_000, batch_size=16, learning_rate=1.5e-3, weight_decay=0.01, optimizer="adamw", lead_steps=300
)
# With the paper's weights the label, and with fewer steps the picture, would hardly be learned.
OBJECTIVE = VideoAutoencodingObjective(config=CONFIG, image_weight=3.0, audio_weight=1.0, label_weight=0.05)

# Made clips that count as an epoch, and that are held out, with a seed of their own.
NUM_MADE, NUM_HELD_OUT = 10_000, 256
HELD_OUT_SEED = 1_000_001


def prepare(arguments: argparse.Namespace, config: VideoAutoencodingConfig) -> Material:
    """Maps `--data`, or made clips, to what the small model learns from."""
    if arguments.data is not None:
        material = video_autoencoding.prepare(arguments, config)
        return dataclasses.replace(material, objective=dataclasses.replace(OBJECTIVE, config=material.config))
    sizes: dict[str, Any] = {
        name: getattr(config, name) for name in ("num_frames", "image_size", "audio_samples_per_frame")
    }
    held_out = MovingShapes(NUM_HELD_OUT, **sizes)
    return Material(
        config=config,
        dataset=MovingShapes(NUM_MADE, **sizes),
        objective=OBJECTIVE,
        evaluate=VideoAutoencodingEvaluation(dataset=held_out, seed=HELD_OUT_SEED, num_workers=arguments.workers),
        description="shapes that glide about, each kind with a tone of its own, made up (MovingShapes); "
        f"{NUM_HELD_OUT} clips with other seeds are held out",
        class_names=MovingShapes.classes,
    )


TASK = dataclasses.replace(
    video_autoencoding.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data="moving, humming shapes, made up"),
)
