"""What the examples share: their options, the model, where results go, and one line for an error."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import perceiver_io
from perceiver_io.atomic import new_file
from perceiver_io.inputs.extras import needs_extra

SAMPLES = Path(__file__).parent / "samples"

Model = TypeVar("Model", bound=nn.Module)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every example takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIRECTORY",
        help="a converted or trained model; without one, a small untrained model shows the mechanics",
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to run the model"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), help="a directory, or the file for the main result"
    )
    return parser


def load_or_create(arguments: argparse.Namespace, kind: type[Model], preset: str, small: Mapping[str, Any]) -> Model:
    """The model of `--checkpoint`, or without it a small untrained one, on `--device` and ready to predict.

    Raises:
        ValueError: a checkpoint of another kind of model, or a device that is not there.
    """
    if arguments.checkpoint is not None:
        model = perceiver_io.load_model(arguments.checkpoint)
    else:
        torch.manual_seed(0)
        model = perceiver_io.create_model(preset, **small)
        print(
            "No --checkpoint: using a small, randomly initialised model. Its predictions mean nothing.",
            file=sys.stderr,
        )
    if not isinstance(model, kind):
        raise ValueError(f"{arguments.checkpoint} holds a {type(model).__name__}; this example needs a {kind.__name__}")
    try:
        return model.to(arguments.device).eval()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"cannot use --device {arguments.device}: {error}") from error


def progress(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar for a model's `progress` argument."""
    with needs_extra("the progress bar"):
        from tqdm import tqdm
    return lambda steps: tqdm(steps, desc=description, leave=False)


def top_classes(logits: Tensor, names: Sequence[str], count: int = 5) -> tuple[list[str], list[float]]:
    """Logits of one example → the names and probabilities of its likeliest classes; prints them too.

    Args:
        logits: [classes].
        names: of the released model's classes; a model with another number of classes has numbers for names.
        count: how many to name.
    """
    best = logits.softmax(-1).cpu().topk(min(count, len(logits)))
    known = len(logits) == len(names)
    labels = [names[index] if known else f"class {index}" for index in best.indices.tolist()]
    probabilities: list[float] = best.values.tolist()
    for label, probability in zip(labels, probabilities, strict=True):
        print(f"{probability:6.1%}  {label}")
    return labels, probabilities


def result_path(output: Path, name: str, suffixes: Sequence[str]) -> Path:
    """`--output` → the path of the main result, whose directory then exists.

    Args:
        output: a directory, or a file with one of the suffixes.
        name: of the file in a directory, without its suffix.
        suffixes: that the main result can have, the usual one first.

    Raises:
        ValueError: a file name of another kind.
    """
    path = output if output.suffix and not output.is_dir() else output / f"{name}{suffixes[0]}"
    if path.suffix not in suffixes:
        raise ValueError(f"--output {output} must be a directory or end in {' or '.join(suffixes)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` once the block has ended without an error."""
    with new_file(path) as temporary:
        yield temporary
    print(f"wrote {path}")


@contextmanager
def reported_errors() -> Iterator[None]:
    """Errors that a user can mend → one line and exit code 2 instead of a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
