"""The parts that examples share: options, a place for results, mistakes told in one line, and the training command."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from perceiver_io.atomic import new_files
from perceiver_io.commands.cli import reported_errors, run_module
from perceiver_io.commands.models import add_device_argument
from perceiver_io.commands.train import TaskCommand
from perceiver_io.training.tasks import Task


def options(description: str, checkpoint: str) -> argparse.ArgumentParser:
    """Makes a parser with the options that all examples have.

    Args:
        description: the script's docstring.
        checkpoint: name of the model that is used if none is given.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=checkpoint, help="a directory or a name (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="a directory (default: %(default)s)")
    add_device_argument(parser)
    return parser


@contextmanager
def results(arguments: argparse.Namespace, *inputs: Path) -> Iterator[Path]:
    """Yields a directory for an example's files, which go to `--output` if the block succeeds; gradients are off.

    Raises:
        SystemExit: after an error that the user can mend (code 2) or an interruption (130).
    """
    output: Path = arguments.output
    with reported_errors():
        with torch.inference_mode(), new_files(output) as folder:
            yield folder
            names = sorted(file.name for file in folder.iterdir())
            if taken := [given for given in inputs for name in names if given.resolve() == (output / name).resolve()]:
                raise FileExistsError(f"the results would replace the input {taken[0]}; choose another --output")
        print("wrote", ", ".join(str(output / name) for name in names))


def train(task: Task, argv: Sequence[str] | None = None) -> None:
    """Trains with the script's arguments.

    Raises:
        SystemExit: as `results`.
    """
    if code := run_module(TaskCommand(task), argv, prog=f"python examples/{Path(sys.argv[0]).name}"):
        raise SystemExit(code)
