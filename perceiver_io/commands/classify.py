"""Names what is in a picture."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from perceiver_io import ImageClassificationPerceiver
from perceiver_io.atomic import new_files
from perceiver_io.commands.models import add_model_arguments, check_finite, class_names, device_of, load_model
from perceiver_io.commands.results import add_output_argument, check_results, classes_lines, files_line, result_path
from perceiver_io.media import load_image
from perceiver_io.processors import ClassProbability, ImageProcessor
from perceiver_io.visualize import draw_classes
from perceiver_io.weights.locations import sample

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
    """Maps parsed arguments to the likeliest classes of each picture, and the files written.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    path = result_path(arguments.output, "image_classification", [".png", ".pdf", ".svg"])
    # The bundled model knows digits only.
    images = arguments.image or [sample("digit_3.png" if arguments.checkpoint == BUNDLED else "balloon.jpg")]
    check_results(arguments, path, [], images)
    pictures = [load_image(image) for image in images]
    with new_files(path.parent) as folder:
        model, processor = load(arguments.checkpoint, arguments.device)
        predictions = predict(model, processor, pictures)
        files = write(pictures, predictions, folder / path.name)
    return {
        "images": [
            {"image": str(image), "classes": [one._asdict() for one in classes]}
            for image, classes in zip(images, predictions, strict=True)
        ],
        "files": [str(path.parent / file) for file in files],
    }


def load(checkpoint: str, device: str) -> tuple[ImageClassificationPerceiver, ImageProcessor]:
    """The model of a checkpoint and its processor.

    Raises:
        FileNotFoundError, ValueError: no such model, a damaged one or one of another kind, or no such device.
    """
    model = load_model(checkpoint, device, ImageClassificationPerceiver)
    return model, ImageProcessor.for_model(model, class_names(checkpoint))


@torch.inference_mode()
def predict(
    model: ImageClassificationPerceiver, processor: ImageProcessor, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]
) -> list[list[ClassProbability]]:
    """Maps pictures to the likeliest classes of each.

    Raises:
        ValueError: a picture that is too small, or the model's output is not finite.
    """
    # One by one: a thousand pictures at once would not fit into memory.
    return [processor.classes(check_finite(model(processor(picture).to(device_of(model)))))[0] for picture in pictures]


def write(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], predictions: Sequence[Sequence[ClassProbability]], path: Path
) -> list[str]:
    """Writes a chart of each picture's classes, numbered if there are several; returns their names."""
    names = []
    for number, (picture, classes) in enumerate(zip(pictures, predictions, strict=True), start=1):
        file = path if len(pictures) == 1 else path.with_stem(f"{path.stem}_{number}")
        draw_classes(picture, *zip(*classes, strict=True)).savefig(file)
        names.append(file.name)
    return names


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    lines = []
    for image in result["images"]:
        lines += [f"{image['image']}:", *classes_lines(image["classes"])]
    return "\n".join([*lines, files_line(result["files"])])
