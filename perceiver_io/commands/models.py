"""The model of a command: its options, the model that they name, and how it is told which that was."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import perceiver_io
from perceiver_io.optional import needs_extra
from perceiver_io.processors import read_class_names
from perceiver_io.terminal import LONGEST_NAME, one_line
from perceiver_io.weights.locations import find_model

Model = TypeVar("Model", bound=nn.Module)

_FETCH = "perceiver-io download {0}, then add --checkpoint {0}"
# The knowledge of the small models, and how to get one that knows more.
_BUNDLED = {
    "tiny-language": (
        "knows a little of the English of Python's documentation",
        f"for other texts: {_FETCH.format('language')}",
    ),
    "tiny-autoregressive": (
        "continues the English of Python's documentation",
        "for other texts: perceiver-io convert PERCEIVER_AR DIRECTORY, then add --checkpoint DIRECTORY",
    ),
    "tiny-image-classification": (
        "knows handwritten digits, and takes every picture for one",
        f"for photographs: {_FETCH.format('imagenet-conv')}",
    ),
    "tiny-optical-flow": (
        "knows textures that move by up to 6 pixels",
        f"for films: {_FETCH.format('optical-flow')}",
    ),
    "tiny-video-autoencoding": (
        "knows drawn shapes that glide and hum",
        f"for films: {_FETCH.format('video-autoencoding')}",
    ),
}


def add_model_arguments(parser: argparse.ArgumentParser, usual: str | None) -> None:
    """Adds the options that every command with a model has.

    Args:
        usual: name of the model that is taken where none is named; None requires one.
    """
    parser.add_argument(
        "--checkpoint",
        default=usual,
        required=usual is None,
        metavar="MODEL",
        help="the directory of a converted or trained model, or the name of one that comes with the library or was "
        f"downloaded{'' if usual is None else ' (default: %(default)s)'}",
    )
    add_device_argument(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to run the model (default: %(default)s)",
    )


def load_model(checkpoint: str, device: str, *kinds: type[Model]) -> Model:
    """Loads the model of `--checkpoint`, on `--device` and ready to predict.

    Args:
        kinds: of models that the command takes.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: a damaged checkpoint, one of another kind of model, or a device that is not there.
    """
    model = perceiver_io.load_model(checkpoint)
    if not isinstance(model, kinds):
        names = " or a ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{checkpoint} holds a {type(model).__name__}; this needs a {names}")
    try:
        torch.ones(1, device=device).item()
        return model.to(device).eval()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"cannot use --device {device}: {error}") from error


def class_names(checkpoint: str) -> tuple[str, ...] | None:
    """Reads the class names that come with the model of `--checkpoint`, if any.

    Raises:
        ValueError: the file that should hold them is damaged.
    """
    return read_class_names(find_model(checkpoint))


def model_notes(checkpoint: str) -> dict[str, str | None]:
    """Says which model a command used; of one that comes with the library, what it knows, and how to get another.

    Returns:
        For the result of a command: "checkpoint", and "knows" and "instead", which are None for other models.
    """
    knows, instead = _BUNDLED.get(checkpoint, (None, None)) if not Path(checkpoint).is_dir() else (None, None)
    return {"checkpoint": checkpoint, "knows": knows, "instead": instead}


def model_lines(result: dict[str, Any]) -> list[str]:
    """Maps what `model_notes` says to the lines for a person."""
    if result["knows"] is None:
        return [f"model: {one_line(result['checkpoint'], LONGEST_NAME)}"]
    return [f"model: {result['checkpoint']}, a small one that {result['knows']}", f"  {result['instead']}"]


def progress(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Makes a progress bar for a model's `progress` argument: on stderr if that is a terminal, else none.

    Raises:
        ImportError: tqdm is missing; it comes with the `examples` extra.
    """
    if not sys.stderr.isatty():
        return lambda steps: steps
    with needs_extra("the progress bar"):
        from tqdm import tqdm
    return lambda steps: tqdm(steps, desc=description, leave=False)
