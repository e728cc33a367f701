"""Commands that have a command of their own for each task."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any


def add_tasks(
    parser: argparse.ArgumentParser,
    package: str,
    names: Sequence[str],
    add_task_arguments: Callable[[argparse.ArgumentParser, Any], None],
) -> None:
    """Adds a command for each task to the parser of another.

    Args:
        package: whose module of the task's name has it as `TASK`.
        names: of the tasks.
        add_task_arguments: adds the options of one.
    """
    tasks = parser.add_subparsers(metavar="TASK", required=True, help="one of " + ", ".join(names))
    for name in names:
        task = importlib.import_module(f"{package}.{name}").TASK
        one = tasks.add_parser(name, description=task.description, formatter_class=argparse.RawDescriptionHelpFormatter)
        add_task_arguments(one, task)
        # These may come before the task or after it.
        for option in ("--json", "--debug"):
            one.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
