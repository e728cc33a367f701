"""Which model a command uses: its options, and the model that they name."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import perceiver_io
from perceiver_io.optional import needs_extra
from perceiver_io.processors import read_class_names
from perceiver_io.weights.locations import find_model

Model = TypeVar("Model", bound=nn.Module)


def add_model_arguments(parser: argparse.ArgumentParser, bundled: str) -> None:
    """Adds the options that every command with a model has.

    Args:
        bundled: name of the small model that comes with the library.
    """
    parser.add_argument(
        "--checkpoint",
        default=bundled,
        metavar="MODEL",
        help="the directory of a converted or trained model, or the name of one that comes with the library or was "
        "downloaded (default: %(default)s)",
    )
    add_device_argument(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to run the model (default: %(default)s)",
    )


def load_model(checkpoint: str, device: str, kind: type[Model]) -> Model:
    """The model of `--checkpoint`, on `--device` and ready to predict.

    Args:
        kind: of model that the command needs.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: a damaged checkpoint, one of another kind of model, or a device that is not there.
    """
    model = perceiver_io.load_model(checkpoint)
    if not isinstance(model, kind):
        raise ValueError(f"{checkpoint} holds a {type(model).__name__}; this needs a {kind.__name__}")
    try:
        torch.ones(1, device=device).item()
        return model.to(device).eval()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"cannot use --device {device}: {error}") from error


def class_names(checkpoint: str) -> tuple[str, ...] | None:
    """The class names that come with the model of `--checkpoint`, if any.

    Raises:
        ValueError: the file that should hold them is damaged.
    """
    return read_class_names(find_model(checkpoint))


def device_of(model: nn.Module) -> torch.device:
    """Device of a model's parameters."""
    return next(model.parameters()).device


def check_finite(output: Tensor) -> Tensor:
    """Passes a model's output on.

    Raises:
        ValueError: the output is not finite.
    """
    if not output.isfinite().all():
        raise ValueError("the model's output is not finite; its checkpoint is damaged, or its training failed")
    return output


def progress(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar on stderr for a model's `progress` argument.

    Raises:
        ImportError: tqdm is missing; it comes with the `examples` extra.
    """
    with needs_extra("the progress bar"):
        from tqdm import tqdm
    return lambda steps: tqdm(steps, desc=description, leave=False)
