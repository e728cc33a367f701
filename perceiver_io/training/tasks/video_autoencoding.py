"""Training of models that squeeze video and sound through a few latents, rebuild both, and name what is going on."""

import argparse
import dataclasses
from typing import Any

from perceiver_io.models import VideoAutoencodingConfig
from perceiver_io.training.data.class_folders import find_labelled_files
from perceiver_io.training.data.clips import VIDEO_SUFFIXES, VideoFolder
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.tasks.task import Material, Task, check_apart
from perceiver_io.training.video_autoencoding import VideoAutoencodingEvaluation, VideoAutoencodingObjective

FINE_TUNING_RECIPE = Recipe(
    num_steps=10_000, batch_size=16, learning_rate=1e-4, weight_decay=0.01, optimizer="adamw", lead_steps=500
)


def prepare(arguments: argparse.Namespace, config: VideoAutoencodingConfig) -> Material:
    """Maps `--data` to clips from anywhere in its films, and the starts of others, which are held out."""
    sizes: dict[str, Any] = {
        name: getattr(config, name) for name in ("num_frames", "image_size", "audio_samples_per_frame")
    }
    check_apart(arguments)
    classes, training_files, held_out_files = find_labelled_files(arguments.data, VIDEO_SUFFIXES)
    clips = SkipUnusable(VideoFolder(training_files, **sizes))
    held_out = SkipUnusable(VideoFolder(held_out_files, **sizes, random_positions=False))
    config = with_classes(config, len(classes), is_new=arguments.source is None)
    return Material(
        config=config,
        dataset=clips,
        objective=VideoAutoencodingObjective(config=config),
        evaluate=VideoAutoencodingEvaluation(dataset=held_out, num_workers=arguments.workers),
        description=f"{len(training_files)} videos of {arguments.data}; {len(held_out_files)} are held out",
        class_names=classes if len(classes) == config.num_classes else None,
        skipping=[clips, held_out],
    )


def with_classes(config: VideoAutoencodingConfig, num_classes: int, is_new: bool) -> VideoAutoencodingConfig:
    """Gives a new model the data's classes. A trained one keeps its own, of which the data's are the first.

    Raises:
        ValueError: if the data have more classes than the trained model.
    """
    if is_new:
        return dataclasses.replace(config, num_classes=num_classes)
    if num_classes > config.num_classes:
        raise ValueError(
            f"the data have {num_classes} classes and the model {config.num_classes}; since the label is an input too, "
            "the model cannot get more: use as many folders of classes at most, or train a new model"
        )
    return config


TASK = Task(
    name="video_autoencoding",
    description="Trains a model that squeezes video and sound through a few latents, rebuilds both, and names them.",
    presets=["video-autoencoding"],
    config_class=VideoAutoencodingConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data="video files in folders train/CLASS and val/CLASS, or in folders CLASS, of which every tenth is held out",
    prepare=prepare,
)
