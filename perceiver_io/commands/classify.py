"""Names what is in a picture."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io import ImageClassificationPerceiver, PerceiverClassifier
from perceiver_io.atomic import new_files
from perceiver_io.commands.models import (
    add_model_arguments,
    class_names,
    load_model,
    model_lines,
    model_notes,
)
from perceiver_io.commands.results import add_output_argument, check_results, classes_lines, files_line, result_path
from perceiver_io.media import load_image
from perceiver_io.outputs import check_finite, device_of
from perceiver_io.processors import ClassProbability, ImageProcessor
from perceiver_io.terminal import one_line
from perceiver_io.visualize import draw_classes, save_figure
from perceiver_io.weights.locations import sample

# What names pictures.
Classifier = ImageClassificationPerceiver | PerceiverClassifier

EXAMPLE = "perceiver-io classify --checkpoint pytorch_checkpoints/imagenet-conv --image dog.jpg"
BUNDLED = "tiny-image-classification"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model_arguments(parser, BUNDLED)
    parser.add_argument(
        "--image", type=Path, nargs="+", metavar="FILE", help="a picture file, or several (default: a sample)"
    )
    add_output_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Names the likeliest classes of each picture, and writes charts of them. Pictures that cannot be read are told of.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    path = result_path(arguments.output, "image_classification", [".png", ".pdf", ".svg"])
    # The bundled model knows digits only.
    images = arguments.image or [sample("digit_3.png" if arguments.checkpoint == BUNDLED else "balloon.jpg")]
    charts = [path] if len(images) == 1 else [path.with_stem(f"{path.stem}_{n}") for n in range(1, len(images) + 1)]
    check_results(arguments, path, [chart for chart in charts if chart != path], images)
    results: list[dict[str, Any]] = []
    with new_files(path.parent) as folder:
        model, processor = load(arguments.checkpoint, arguments.device)
        # One by one: a thousand pictures at once would not fit into memory.
        for image, chart in zip(images, charts, strict=True):
            try:
                picture = load_image(image)
                prepared = processor(picture)
            except (ValueError, OSError) as error:
                reason = str(error) if str(image) in str(error) else f"{image}: {error}"
                if len(images) == 1:
                    raise ValueError(reason) from error
                print(f"error: {one_line(reason)}", file=sys.stderr)
                results.append({"image": str(image), "error": one_line(reason)})
                continue
            classes = predict(model, processor, prepared)
            write(picture, classes, folder / chart.name)
            results.append({"image": str(image), "classes": [one._asdict() for one in classes], "file": str(chart)})
        if not any("classes" in result for result in results):
            raise ValueError(f"none of the {len(images)} pictures could be classified")
    files = [result.pop("file") for result in results if "file" in result]
    return {**model_notes(arguments.checkpoint), "images": results, "files": files}


def exit_code(result: dict[str, Any]) -> int:
    """Returns 2 if a picture could not be read, else 0."""
    return 2 if any("error" in image for image in result["images"]) else 0


def load(checkpoint: str, device: str) -> tuple[Classifier, ImageProcessor]:
    """Loads the model of a checkpoint, and makes its processor.

    Raises:
        FileNotFoundError, ValueError: no such model, a damaged one or one of another kind, or no such device.
    """
    model: Any = load_model(checkpoint, device, ImageClassificationPerceiver, PerceiverClassifier)
    return model, ImageProcessor.for_model(model, class_names(checkpoint))


@torch.inference_mode()
def predict(
    model: Classifier, processor: ImageProcessor, prepared: Float[Tensor, "1 3 height width"]
) -> list[ClassProbability]:
    """Maps a picture, as the processor prepares it, to its likeliest classes.

    Raises:
        ValueError: the model's output is not finite.
    """
    return processor.classes(check_finite(model(prepared.to(device_of(model)))))[0]


def write(picture: UInt8[np.ndarray, "height width 3"], classes: Sequence[ClassProbability], path: Path) -> None:
    """Writes a chart of a picture's classes."""
    save_figure(draw_classes(picture, *zip(*classes, strict=True)), path)


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    lines = model_lines(result)
    for image in result["images"]:
        lines.append(f"{image['image']}:{'' if 'classes' in image else ' not classified'}")
        lines += classes_lines(image.get("classes", []))
    return "\n".join([*lines, files_line(result["files"])])
