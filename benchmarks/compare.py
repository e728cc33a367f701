"""Measures this library against the reference under JAX, transformers and perceiver-pytorch, in one run.

    python -m benchmarks.compare [--reference CHECKOUT] [--rows ROW ...] [--sides SIDE ...]
        [--repeats N] [--threads N] [--json FILE] [--markdown FILE] [--scaling] [--neighbour] [--tiny]

float32, batch 1, random weights of the released sizes, on the CPU. Every side has a process of its own, and the sides
take turns, so that whatever else disturbs the machine disturbs all of them. README.md beside this file says what the
figures mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import GemmPeak, describe
from benchmarks.measure import SIDES, RowResult, measure_row
from benchmarks.neighbour import Slowing, measure_slowing, slowing_table
from benchmarks.report import comparison_tables, head
from benchmarks.rows import ROWS, make_case
from benchmarks.scaling import GRID, TINY_GRID, Point, measure_scaling, scaling_table
from benchmarks.worker import available_cores

_GEMM_SIZE = 2048
_TINY_GEMM_SIZE = 128


def main(argv: list[str] | None = None) -> int:
    """Maps command line to tables on standard output, and exit status: 1 if our own side failed anywhere."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    cores = len(available_cores())
    if not 1 <= arguments.threads <= cores:
        parser.error(f"--threads ({arguments.threads}) must be from 1 to the number of cores here ({cores})")
    if arguments.repeats < 1:
        parser.error(f"--repeats ({arguments.repeats}) must be at least 1")
    description = describe()
    if arguments.rows is not None:
        rows = arguments.rows
    else:
        rows = ["language-2048"] if arguments.neighbour else [] if arguments.scaling else list(ROWS)
    results, gemm = _compare([] if arguments.neighbour else rows, arguments)
    slowings = _beside_a_neighbour(rows, arguments) if arguments.neighbour else []
    points = _scale(arguments) if arguments.scaling else []
    markdown = head(description, _command(arguments, rows), arguments.threads, arguments.repeats)
    if results:
        markdown += "\n" + comparison_tables(results, gemm)
    if slowings:
        markdown += "\n" + slowing_table(slowings)
    if points:
        markdown += "\n" + scaling_table(points)
    print(markdown)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown, encoding="utf-8")
    if arguments.json is not None:
        record: dict[str, Any] = {
            "machine": description,
            "threads": arguments.threads,
            "gemm_gflops": gemm,
            "rows": [asdict(result) for result in results],
            "neighbour": [asdict(slowing) for slowing in slowings],
            "scaling": [asdict(point) for point in points],
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    failures = [result.sides["ours"].failure for result in results if "ours" in result.sides]
    failures += [slowing.failure for slowing in slowings if slowing.side == "ours"]
    return int(any(failure is not None for failure in failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help="checkout of google-deepmind/deepmind-research; without it the reference is left out",
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument(
        "--sides", nargs="+", choices=list(SIDES), default=list(SIDES), metavar="SIDE", help=f"of {', '.join(SIDES)}"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed runs of each side (default: 5)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="cores of each side (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every single time there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="writes the tables there")
    parser.add_argument("--scaling", action="store_true", help="how our cost grows; rows only if --rows names some")
    parser.add_argument(
        "--neighbour",
        action="store_true",
        help="times the rows (language-2048, unless --rows names others) alone and beside a busy process instead",
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try this script; the figures mean nothing")
    return parser


def _compare(rows: list[str], arguments: argparse.Namespace) -> tuple[list[RowResult], dict[str, float]]:
    """Maps rows to their results, and the speed of matrix products by kernel, seen between the rows."""
    results: list[RowResult] = []
    if not rows:
        return results, {}
    with GemmPeak(arguments.threads, _TINY_GEMM_SIZE if arguments.tiny else _GEMM_SIZE) as peak:
        for name in rows:
            peak.measure()
            case = make_case(ROWS[name], arguments.tiny)
            result = measure_row(case, arguments.sides, arguments.reference, arguments.repeats, arguments.threads)
            for side, theirs in result.sides.items():
                outcome = theirs.failure or f"{theirs.median:.3g} s"
                print(f"{name} {side}: {outcome}", file=sys.stderr, flush=True)
            results.append(result)
        peak.measure()
        return results, peak.by_kernel


def _beside_a_neighbour(rows: list[str], arguments: argparse.Namespace) -> list[Slowing]:
    sides = [name for name in arguments.sides if name != "reference-one-program"]
    slowings = []
    for name in rows:
        case = make_case(ROWS[name], arguments.tiny)
        slowings += measure_slowing(case, sides, arguments.reference, arguments.repeats, arguments.threads)
    return slowings


def _scale(arguments: argparse.Namespace) -> list[Point]:
    points = []
    for point in measure_scaling(TINY_GRID if arguments.tiny else GRID, arguments.repeats, arguments.threads):
        print(f"{point.axis} {getattr(point.sizes, point.axis)}: {point.median:.3g} s", file=sys.stderr, flush=True)
        points.append(point)
    return points


def _command(arguments: argparse.Namespace, rows: list[str]) -> str:
    """The command that does this again, without the paths of this machine."""
    words = ["python -m benchmarks.compare"]
    if arguments.reference is not None:
        words.append("--reference CHECKOUT")
    if rows and (rows != list(ROWS) or arguments.scaling or arguments.neighbour):
        words.append(f"--rows {' '.join(rows)}")
    if arguments.sides != list(SIDES):
        words.append(f"--sides {' '.join(arguments.sides)}")
    words += [f"--repeats {arguments.repeats}", f"--threads {arguments.threads}"]
    words += [f"--{flag}" for flag in ("scaling", "neighbour", "tiny") if getattr(arguments, flag)]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
