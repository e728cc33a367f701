"""The commands of `perceiver-io`, a module each."""

import argparse
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Command(Protocol):
    """The parts of a module of this package.

    Attributes:
        __doc__: its first line is the command's line in `perceiver-io --help`; all of it is shown by its own `--help`.
        EXAMPLE: a line for the shell.
    """

    __doc__: str | None
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's options; `--json` and `--debug` are there already."""

    def run(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Does the work and returns what `--json` prints. Progress and notices go to stderr.

        Raises:
            ValueError, OSError, ImportError: what the user can mend; the message is one line.
        """

    def describe(self, result: dict[str, Any]) -> str:
        """Maps what `run` returned to what a person reads."""
