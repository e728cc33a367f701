"""Training of models that find how every pixel moves from one frame to the next."""

import argparse
from collections.abc import Callable

from perceiver_io.models import OpticalFlowConfig
from perceiver_io.training.data.flow import FlowFolder, find_training_pairs, split_pairs
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.flow_augmentation import (
    FlowAugmentation,
    cropped,
    cropped_and_mirrored,
    raft_chairs,
    raft_kitti,
    raft_sintel,
    raft_things,
)
from perceiver_io.training.optical_flow import OpticalFlowEvaluation, OpticalFlowObjective
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.tasks.task import Material, Task

FINE_TUNING_RECIPE = Recipe(
    num_steps=10_000, batch_size=8, learning_rate=1e-4, weight_decay=0.01, optimizer="adamw", lead_steps=500
)


# What becomes of the pairs, by the phase of training: see docs/training.md.
PHASES: dict[str, Callable[[tuple[int, int]], FlowAugmentation]] = {
    "mirrored": cropped_and_mirrored,
    "both-ways": cropped,
    "chairs": raft_chairs,
    "things": raft_things,
    "sintel": raft_sintel,
    "kitti": raft_kitti,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which of Sintel's pictures to take, what becomes of the pairs, and how much of one is learned at a step."""
    parser.add_argument("--sintel-pass", choices=["clean", "final"], default="clean", help="which of Sintel's pictures")
    parser.add_argument(
        "--phase",
        choices=PHASES,
        default="mirrored",
        help="what becomes of the pairs: mirrored crops (default); crops of each pair forwards and in reverse, as the "
        "paper begins; or the augmentation of one of RAFT's four stages",
    )
    parser.add_argument(
        "--points", type=int, default=1024, help="pixels of each pair whose motion is learned at a step; 0 takes all"
    )


def prepare(arguments: argparse.Namespace, config: OpticalFlowConfig) -> Material:
    """Maps `--data` to crops of its pairs, and whole ones that are held out."""
    training_pairs, held_out_pairs = split_pairs(find_training_pairs(arguments.data, arguments.sintel_pass))
    augmentation, both_ways = PHASES[arguments.phase](config.image_size), arguments.phase == "both-ways"
    pairs = SkipUnusable(FlowFolder(training_pairs, augmentation, both_ways=both_ways))
    held_out = SkipUnusable(FlowFolder(held_out_pairs, min_size=config.image_size))
    return Material(
        config=config,
        dataset=pairs,
        objective=OpticalFlowObjective(num_points=arguments.points or None),
        evaluate=OpticalFlowEvaluation(dataset=held_out, num_workers=arguments.workers),
        description=f"{len(training_pairs)} pairs of {arguments.data}; {len(held_out_pairs)} are held out",
        skipping=[pairs, held_out],
    )


TASK = Task(
    name="optical_flow",
    description="Trains a model that finds how every pixel moves from one frame to the next.",
    presets=["optical-flow"],
    config_class=OpticalFlowConfig,
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data="pairs of frames with files of flow, named as in Sintel, FlyingChairs, AutoFlow, FlyingThings3D or KITTI; "
    "the last tenth of them is held out",
    prepare=prepare,
    add_arguments=add_arguments,
)
