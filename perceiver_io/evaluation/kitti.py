"""KITTI: its training pairs, of 2015 or of 2012, with the motion of all pixels that is known."""

import argparse
from collections.abc import Sequence

from perceiver_io.evaluation import optical_flow
from perceiver_io.evaluation.optical_flow import FlowProtocol
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.models import OpticalFlowPerceiver
from perceiver_io.training.data.flow import find_kitti_pairs


def prepare(arguments: argparse.Namespace, model: OpticalFlowPerceiver, _: Sequence[str] | None) -> FlowProtocol:
    """Maps `--data` to the protocol for a model."""
    pairs = find_kitti_pairs(arguments.data)
    return FlowProtocol(
        {"": pairs},
        model.config.image_size,
        tuple(arguments.tiles),
        {"": 4.98},
        f"{len(pairs):,} pairs of {arguments.data}",
    )


TASK = EvaluationTask(
    name="kitti",
    description="Finds the motion in KITTI's training pairs: end-point error and Fl-all.",
    checkpoint="optical-flow",
    models=(OpticalFlowPerceiver,),
    data="KITTI as its owners ship it: training/image_2 (2015) or training/colored_0 (2012), and training/flow_occ",
    prepare=prepare,
    batch_size=1,
    add_arguments=optical_flow.add_arguments,
)
