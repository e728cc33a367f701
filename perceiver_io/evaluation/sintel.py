"""Sintel: both passes of its training scenes."""

import argparse
from collections.abc import Mapping, Sequence

from perceiver_io.evaluation import optical_flow
from perceiver_io.evaluation.optical_flow import FlowProtocol
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.models import OpticalFlowPerceiver
from perceiver_io.training.data.flow import PairFiles, find_pairs

_PUBLISHED = {"clean": 1.81, "final": 2.42}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which passes are measured, and the number of tiles."""
    parser.add_argument(
        "--passes",
        nargs="+",
        choices=list(_PUBLISHED),
        default=list(_PUBLISHED),
        help="renderings to measure (default: both)",
    )
    parser.add_argument(
        "--leave-out-invalid",
        action="store_true",
        help="do not count pixels that Sintel's folder `invalid` marks; published figures count them",
    )
    optical_flow.add_arguments(parser)


def prepare(arguments: argparse.Namespace, model: OpticalFlowPerceiver, _: Sequence[str] | None) -> FlowProtocol:
    """Maps `--data` to the protocol for a model."""
    groups = {name: find_pairs(arguments.data, name) for name in dict.fromkeys(arguments.passes)}
    if arguments.leave_out_invalid:
        _check_marked(groups)
    else:
        groups = {name: [pair._replace(invalid=None) for pair in pairs] for name, pairs in groups.items()}
    number = sum(map(len, groups.values()))
    return FlowProtocol(
        groups,
        model.config.image_size,
        tuple(arguments.tiles),
        {name: _PUBLISHED[name] for name in groups},
        f"{number:,} pairs of {arguments.data}, {' and '.join(groups)}"
        + (" without invalid pixels" if arguments.leave_out_invalid else ""),
    )


def _check_marked(groups: Mapping[str, Sequence[PairFiles]]) -> None:
    for pair in (pair for pairs in groups.values() for pair in pairs):
        if pair.invalid is None:
            raise ValueError(
                f"{pair.flow} has no picture of invalid pixels in a folder `invalid`; leave --leave-out-invalid away"
            )


TASK = EvaluationTask(
    name="sintel",
    description="Finds the motion in Sintel's training scenes: end-point error and Fl-all of both passes.",
    checkpoint="optical-flow",
    models=(OpticalFlowPerceiver,),
    data="Sintel as its owners ship it: training/clean, training/final and training/flow",
    prepare=prepare,
    batch_size=1,
    add_arguments=add_arguments,
)
