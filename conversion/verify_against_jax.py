"""Runs DeepMind's Haiku code and this library on the same weights and input, and prints how far they differ.

The weights are those of a released checkpoint, or drawn at random such that every tensor matters (biases and
output layers that start at zero do not stay there). Both sides get one and the same Haiku tree, ours through
the converter. Exits 0 if every output agrees within the tolerance, 1 if one does not, 2 if it cannot be tried.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it would see its own folder alone

from conversion.verification import verify
from perceiver_io.commands import Command
from perceiver_io.commands.cli import run_module
from perceiver_io.presets import PRESETS

EXAMPLE = "python conversion/verify_against_jax.py --reference deepmind-research --model imagenet-fourier --small"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return run_module(cast(Command, sys.modules[__name__]), argv, "verify_against_jax.py")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.add_argument(
        "--reference",
        required=True,
        type=Path,
        metavar="CHECKOUT",
        help="checkout of google-deepmind/deepmind-research, or its folder `perceiver`",
    )
    parser.add_argument("--model", required=True, choices=tuple(PRESETS), metavar="PRESET", help=", ".join(PRESETS))
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a released .pystate (default: random weights)")
    parser.add_argument("--small", action="store_true", help="small sizes: seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the input (default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2e-5,
        metavar="X",
        help="largest difference allowed, in standard deviations of the output (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to the difference of each output, and whether all agree.

    Raises:
        ValueError: if it cannot be tried, with what is missing.
        FileNotFoundError: if the checkpoint is not there.
    """
    differences = verify(
        arguments.reference,
        arguments.model,
        checkpoint=arguments.checkpoint,
        small=arguments.small,
        seed=arguments.seed,
        tolerance=arguments.tolerance,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return {
        "preset": arguments.model,
        "agrees": all(difference.agrees for difference in differences.values()),
        "tolerance": arguments.tolerance,
        "outputs": {
            name: {
                "largest": _number(difference.largest),
                "mean": _number(difference.mean),
                "std": _number(difference.std),
                "agrees": difference.agrees,
            }
            for name, difference in differences.items()
        },
    }


def describe(result: dict[str, Any]) -> str:
    """Maps the differences to a line for each output."""
    return "\n".join(
        f"{result['preset']} {name}: max {_text(output['largest'], '.2e')} mean {_text(output['mean'], '.2e')} "
        f"of std {_text(output['std'], '.3g')}: {'ok' if output['agrees'] else 'FAIL'}"
        for name, output in result["outputs"].items()
    )


def exit_code(result: dict[str, Any]) -> int:
    """Maps the differences to 0 if every output agrees, else 1."""
    return 0 if result["agrees"] else 1


def _number(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if math.isfinite(value) else None


def _text(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
