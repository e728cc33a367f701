"""Computes how every pixel moves from one frame to the next."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io import OpticalFlowPerceiver
from perceiver_io.atomic import new_files
from perceiver_io.commands.models import (
    add_model_arguments,
    load_model,
    model_lines,
    model_notes,
    progress,
)
from perceiver_io.commands.results import add_output_argument, check_results, files_line, result_path
from perceiver_io.media import load_image, write_flo
from perceiver_io.outputs import check_finite, device_of
from perceiver_io.processors import FlowProcessor, FramePairs
from perceiver_io.visualize import draw_flow, save_figure
from perceiver_io.weights.locations import sample

EXAMPLE = "perceiver-io flow --frames frame_1.png frame_2.png"
BUNDLED = "tiny-optical-flow"

Frame = UInt8[np.ndarray, "height width 3"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model_arguments(parser, BUNDLED)
    parser.add_argument(
        "--frames",
        type=Path,
        nargs=2,
        metavar=("FIRST", "SECOND"),
        help="two pictures of one size, at least as large as the model's image_size (default: samples)",
    )
    add_output_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Computes how far the pixels move, and writes it.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    path = result_path(arguments.output, "optical_flow", [".png", ".pdf", ".svg"])
    # The bundled model knows textures with motion of a few pixels only.
    samples = "textures" if arguments.checkpoint == BUNDLED else "frame"
    check_results(arguments, path, [path.with_suffix(".flo")], arguments.frames or [])
    first, second = map(load_image, arguments.frames or [sample(f"{samples}_{number}.png") for number in (1, 2)])
    pair = FlowProcessor()(first, second)
    with new_files(path.parent) as folder:
        flow = predict(load(arguments.checkpoint, arguments.device), pair)
        files = write(first, second, flow, folder / path.name)
    return {**model_notes(arguments.checkpoint), **result(flow), "files": [str(path.parent / file) for file in files]}


def load(checkpoint: str, device: str) -> OpticalFlowPerceiver:
    """Loads the model of a checkpoint.

    Raises:
        FileNotFoundError, ValueError: no such model, a damaged one or one of another kind, or no such device.
    """
    return load_model(checkpoint, device, OpticalFlowPerceiver)


@torch.inference_mode()
def predict(model: OpticalFlowPerceiver, pair: FramePairs) -> Float[Tensor, "2 height width"]:
    """Maps a pair of frames to the motion of each pixel of the first.

    Raises:
        ValueError: frames that are too small, or the model's output is not finite.
    """
    frames = (frame.to(device_of(model)) for frame in pair)
    flow: Tensor = check_finite(model(*frames, progress=progress("tiles")))[0].cpu()
    return flow


def write(first: Frame, second: Frame, flow: Float[Tensor, "2 height width"], path: Path) -> list[str]:
    """Writes the picture of a flow, and beside it the flow as a table; returns their names."""
    table = path.with_suffix(".flo")
    save_figure(draw_flow(first, second, flow), path)
    write_flo(table, flow)
    return [path.name, table.name]


def result(flow: Float[Tensor, "2 height width"]) -> dict[str, Any]:
    """Maps a flow to what JSON should hold of it."""
    speed = flow.norm(dim=0)
    return {
        "height": flow.shape[1],
        "width": flow.shape[2],
        "mean_motion": float(speed.mean()),
        "fastest_motion": float(speed.max()),
    }


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    lines = model_lines(result)
    lines += [f"motion in pixels: mean {result['mean_motion']:.2f}, fastest {result['fastest_motion']:.2f}"]
    if not result["fastest_motion"]:
        lines.append("no motion anywhere: the last layer of an untrained flow model is zero")
    return "\n".join([*lines, files_line(result["files"])])
