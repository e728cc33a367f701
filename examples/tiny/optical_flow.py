"""The small optical flow model, which learns from moving textures that are made up."""

import argparse
import dataclasses

import torch

from perceiver_io import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.training import Draw, Recipe, derived_seed
from perceiver_io.training.optical_flow import OpticalFlowEvaluation, OpticalFlowObjective
from perceiver_io.training.tasks import Material, TinyRun, optical_flow

from .local_flow_start import PATCH_CHANNELS, start_locally
from .moving_textures import MovingTextures

CONFIG = OpticalFlowConfig(
    image_size=(64, 96),
    num_bands=16,
    featurizer_channels=PATCH_CHANNELS,
    num_latents=384,
    num_latent_channels=128,
    num_self_attends_per_block=4,
    num_self_attend_heads=4,
    flow_scale=2.0,
)
RECIPE = Recipe(num_steps=6000, batch_size=8, learning_rate=1e-3, weight_decay=0.01, optimizer="adamw", lead_steps=300)
# Steps in which one texture shifts by at most half of the highest speed: without these, finding that there is motion at
# all takes many times as long.
LEAD_IN = 500

# Made pairs that count as an epoch, that are held out, and that the patches' statistics come from; the latter two with
# seeds of their own.
NUM_MADE, NUM_HELD_OUT, NUM_MEASURED = 10_000, 128, 24
HELD_OUT_SEED, MEASURED_SEED = 1_000_001, 1_000_002


def prepare(arguments: argparse.Namespace, config: OpticalFlowConfig) -> Material:
    """Maps `--data`, or made pairs, to what the small model learns from."""
    if arguments.data is not None:
        return dataclasses.replace(optical_flow.prepare(arguments, config), initialise=start_on_made_pairs)
    if arguments.phase != "mirrored":
        raise ValueError(f"--phase {arguments.phase} is for pairs of --data; made ones are as they are: leave it out")
    held_out = MovingTextures(NUM_HELD_OUT, image_size=config.image_size)
    return Material(
        config=config,
        dataset=MovingTextures(NUM_MADE, image_size=config.image_size, lead_in=LEAD_IN),
        objective=OpticalFlowObjective(num_points=arguments.points or None),
        evaluate=OpticalFlowEvaluation(dataset=held_out, seed=HELD_OUT_SEED, batch_size=8),
        description="textures that shift, turn, grow and hide one another, made up (MovingTextures); "
        f"{NUM_HELD_OUT} pairs with other seeds are held out",
        initialise=start_on_made_pairs,
    )


def start_on_made_pairs(model: OpticalFlowPerceiver) -> None:
    """Starts a small model near its places, with the patches of some made pairs."""
    pairs = MovingTextures(NUM_MEASURED, image_size=model.config.image_size)
    examples = [pairs[Draw(index, derived_seed(MEASURED_SEED, index))] for index in range(NUM_MEASURED)]
    start_locally(model, *(torch.stack([example[name] for example in examples]) for name in ("frame1", "frame2")))


TASK = dataclasses.replace(
    optical_flow.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data="moving textures, made up"),
)
