"""`perceiver-io`: one command for what the library does with files.

Each subcommand is a module of `perceiver_io.commands`, which says what it has to offer.
"""

import argparse
import importlib
import json
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn, cast

import torch

from perceiver_io.commands import Command
from perceiver_io.fast.sleeping import sleep_while_waiting
from perceiver_io.terminal import one_line, printable
from perceiver_io.version import __version__

COMMANDS = (
    *("demo", "mlm", "classify", "flow", "video", "generate", "train", "evaluate"),
    *("download", "convert", "export", "info"),
)

# A text filled in may be as long as a model reads, with [MASK] for each byte.
_LONGEST_LINE = 20_000
# Errors that the user can mend. Anything else is a mistake of ours and keeps its traceback.
_USER_ERRORS = (ValueError, OSError, ImportError)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {one_line(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code.

    Returns:
        0, or 2 for anything that the user can put right, or 130 after an interruption.
    """
    if argv is not None:
        return _run(list(argv))
    # Whoever ends us gets the same tidying up as Ctrl-C, and no name of a file is too odd to print.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us; files of ours must not take its place
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # until the end
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
    # Pillow's warnings of odd pictures are errors of ours, or do not matter.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    sleep_while_waiting()
    code = _run(sys.argv[1:])
    with _closed_pipes(), reported_errors():
        sys.stdout.flush()
    return code


def _run(words: list[str]) -> int:
    command = next((word for word in words if word not in ("--json", "--debug")), None)
    if command in COMMANDS:
        words.remove(command)
        return run_command(command, words)
    parser = _overview()
    if command is None:
        parser.print_help(sys.stderr)
        return 2
    parser.parse_args(words)
    raise AssertionError(f"{command} is neither a command nor an error")


def run_command(name: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs one command of `perceiver-io`; as `run_module`, with None for the name within `perceiver-io`."""
    return run_module(_command(name), argv, prog or f"perceiver-io {name}")


def run_module(module: Command, argv: Sequence[str] | None, prog: str) -> int:
    """Runs what a module has to offer and prints its result; returns the exit code as `main` does.

    Args:
        argv: the arguments; None takes those of the program.
        prog: what its help calls it.
    """
    parser = _Parser(
        prog=prog,
        description=module.__doc__,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    words = sys.argv[1:] if argv is None else argv
    parser.set_defaults(command_line=shlex.join([*prog.split(), *words]))
    arguments = parser.parse_args(words)
    try:
        with _closed_pipes(), reported_errors(arguments.debug):
            result = module.run(arguments)
            # NaN is not JSON, and no result that anyone wants.
            print(json.dumps(result, indent=2, allow_nan=False) if arguments.json else _shown(module.describe(result)))
            sys.stdout.flush()
    except SystemExit as ended:
        return cast(int, ended.code)
    # A command may have a verdict, which scripts read from the exit code.
    return module.exit_code(result) if hasattr(module, "exit_code") else 0


@contextmanager
def reported_errors(debug: bool = False) -> Iterator[None]:
    """Turns errors that a user can mend into one line and exit code 2, an interruption into exit code 130.

    Args:
        debug: print the traceback too.

    Raises:
        SystemExit: after an error or an interruption.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads what we print
    except (*_USER_ERRORS, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        if debug:
            traceback.print_exc()
        lacks = "" if isinstance(error, _USER_ERRORS) else "there is not enough memory; give less at once: "
        print(f"error: {lacks}{one_line(str(error)) or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as interruption:
        print(one_line(str(interruption)) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from interruption


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _closed_pipes() -> Iterator[None]:
    """Ends the program quietly, as others end by SIGPIPE, if whoever read its output has stopped to.

    Raises:
        SystemExit: 141 in that case; 2 if the output cannot be written otherwise.
    """
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        # The rest of the buffer would be complained of at the very end.
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(141) from error
        raise


def _shown(text: str) -> str:
    """Maps a result to what a terminal shows of it: printable, and no line longer than a screen."""
    lines = (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in text.split("\n"))
    return printable("\n".join(lines))


def _overview() -> _Parser:
    """The parser for everything that is not a command: help, version, and words that are none."""
    lines = [f"  {name:10} {(_command(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS]
    parser = _Parser(
        prog="perceiver-io",
        description="Perceiver IO: text, images, optical flow, video and sound with one architecture.",
        epilog="\n".join(
            [
                "commands:",
                *lines,
                "",
                "example:",
                "  perceiver-io demo",
                "",
                "`perceiver-io COMMAND --help` tells more, with an example.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="perceiver-io [--help] [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"perceiver-io {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def _command(name: str) -> Command:
    # Only the module that is used: others may be slow to import.
    return cast(Command, importlib.import_module(f"perceiver_io.commands.{name}"))
