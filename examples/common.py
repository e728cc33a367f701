"""The part that examples share: each runs a command of `perceiver-io` under its own name."""

import sys
from collections.abc import Sequence
from pathlib import Path

from perceiver_io.commands.cli import run_command, run_module
from perceiver_io.commands.train import TaskCommand
from perceiver_io.training.tasks import Task


def run(command: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command with the script's arguments.

    Raises:
        SystemExit: after an error that the user can mend (code 2) or an interruption (130).
    """
    if code := run_command(command, argv, prog=Path(sys.argv[0]).name):
        raise SystemExit(code)


def train(task: Task, argv: Sequence[str] | None = None) -> None:
    """Trains with the script's arguments.

    Raises:
        SystemExit: as `run`.
    """
    if code := run_module(TaskCommand(task), argv, prog=f"python examples/{Path(sys.argv[0]).name}"):
        raise SystemExit(code)
