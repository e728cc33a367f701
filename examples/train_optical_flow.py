"""Trains a model that finds how every pixel moves from one frame to the next."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import training

from perceiver_io import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.training import Draw, Recipe, derived_seed
from perceiver_io.training.data.flow import FlowFolder, MovingTextures, find_pairs, split_pairs
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.local_flow_start import PATCH_CHANNELS, start_locally
from perceiver_io.training.optical_flow import OpticalFlowEvaluation, OpticalFlowObjective

TINY_CONFIG = OpticalFlowConfig(
    image_size=(64, 96),
    num_bands=16,
    featurizer_channels=PATCH_CHANNELS,
    num_latents=384,
    num_latent_channels=128,
    num_self_attends_per_block=4,
    num_self_attend_heads=4,
    flow_scale=2.0,
)
TINY_RECIPE = Recipe(
    num_steps=6000, batch_size=8, learning_rate=1e-3, weight_decay=0.01, optimizer="adamw", lead_steps=300
)
# Steps of the tiny recipe in which one texture shifts by at most half of the highest speed: without these, finding that
# there is motion at all takes many times as long.
LEAD_IN = 500
FINE_TUNING_RECIPE = Recipe(
    num_steps=10_000, batch_size=8, learning_rate=1e-4, weight_decay=0.01, optimizer="adamw", lead_steps=500
)

# Made pairs that count as an epoch, that are held out, and that the patches' statistics come from; the latter two with
# seeds of their own.
NUM_MADE, NUM_HELD_OUT, NUM_MEASURED = 10_000, 128, 24
HELD_OUT_SEED, MEASURED_SEED = 1_000_001, 1_000_002


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIRECTORY",
        help="pairs of frames with .flo files, named as in Sintel, FlyingChairs or AutoFlow; the last tenth of them is "
        "held out. Without it, moving textures are made up",
    )
    parser.add_argument("--sintel-pass", choices=["clean", "final"], default="clean", help="which of Sintel's pictures")
    parser.add_argument(
        "--points", type=int, default=1024, help="pixels of each pair whose motion is learned at a step; 0 takes all"
    )


def prepare(arguments: argparse.Namespace, config: OpticalFlowConfig) -> training.Material:
    objective = OpticalFlowObjective(num_points=arguments.points or None)
    initialise = start_on_made_pairs if arguments.tiny else None
    if arguments.data is None:
        lead_in = LEAD_IN if arguments.tiny else 0
        made_held_out = MovingTextures(NUM_HELD_OUT, image_size=config.image_size)
        return training.Material(
            config=config,
            dataset=MovingTextures(NUM_MADE, image_size=config.image_size, lead_in=lead_in),
            objective=objective,
            evaluate=OpticalFlowEvaluation(dataset=made_held_out, seed=HELD_OUT_SEED, batch_size=8),
            description="textures that shift, turn, grow and hide one another, made up (MovingTextures); "
            f"{NUM_HELD_OUT} pairs with other seeds are held out",
            initialise=initialise,
        )
    training_pairs, held_out_pairs = split_pairs(find_pairs(arguments.data, arguments.sintel_pass))
    dataset = SkipUnusable(FlowFolder(training_pairs, crop_size=config.image_size))
    held_out = SkipUnusable(FlowFolder(held_out_pairs))
    return training.Material(
        config=config,
        dataset=dataset,
        objective=objective,
        evaluate=OpticalFlowEvaluation(dataset=held_out, num_workers=arguments.workers),
        description=f"{len(training_pairs)} pairs of {arguments.data}; {len(held_out_pairs)} are held out",
        skipping=[dataset, held_out],
        initialise=initialise,
    )


def start_on_made_pairs(model: OpticalFlowPerceiver) -> None:
    """Starts a tiny model near its places, with the patches of some made pairs."""
    pairs = MovingTextures(NUM_MEASURED, image_size=model.config.image_size)
    examples = [pairs[Draw(index, derived_seed(MEASURED_SEED, index))] for index in range(NUM_MEASURED)]
    start_locally(model, *(torch.stack([example[name] for example in examples]) for name in ("frame1", "frame2")))


TASK = training.Task(
    name="optical-flow",
    description=__doc__,
    presets=["optical-flow"],
    tiny_config=TINY_CONFIG,
    tiny_recipe=TINY_RECIPE,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    add_arguments=add_arguments,
    prepare=prepare,
)


def main(argv: Sequence[str] | None = None) -> None:
    training.main(TASK, argv)


if __name__ == "__main__":
    main()
