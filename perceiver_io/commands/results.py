"""The results of a command: the files that they go to, and how they are told."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceiver_io.terminal import LONGEST_NAME, one_line


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--output`."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs"),
        metavar="PATH",
        help="a directory, or the file for the main result (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace files beside PATH that are there already")


def result_path(output: Path, name: str, suffixes: Sequence[str]) -> Path:
    """Maps `--output` to the path of the main result.

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
    return path


def check_results(
    arguments: argparse.Namespace, main: Path, beside: Sequence[Path], inputs: Sequence[Path | None]
) -> None:
    """Checks, before anything is computed, that a command's results replace nothing that its user would miss.

    Args:
        arguments: with `output` and `force`.
        main: the main result, as `result_path` maps it.
        beside: further results, whose names follow from that.
        inputs: files that the command reads; None for those that it does not.

    Raises:
        FileExistsError: if an input would be replaced, or, without `force`, a file beside the one that `output` names.
    """
    for result in (main, *beside):
        for given in inputs:
            if given is not None and result.exists() and given.exists() and result.samefile(given):
                raise FileExistsError(f"{result} would replace the input {given}; choose another --output")
    for result in beside if main == arguments.output and not arguments.force else ():
        if result.is_file():
            raise FileExistsError(
                f"{result} is there already and would be replaced; choose another --output, or --force"
            )


def classes_lines(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Maps the likeliest classes to a line for each."""
    return [f"{one['probability']:6.1%}  {one_line(one['name'], LONGEST_NAME)}" for one in classes]


def files_line(files: Sequence[str]) -> str:
    """Maps names of files to the line that tells of them."""
    return f"wrote {', '.join(files)}"
