"""Measures this library on a GPU: parity with the CPU, speed beside transformers, training steps, memory, first calls.

    python -m benchmarks.cuda [--device cuda] [--rows ROW ...] [--budget SECONDS] [--quick]
        [--reference CHECKOUT] [--json FILE] [--markdown FILE]

Random weights of the released sizes, medians of a few runs, each waited for. Tasks come in the order of their worth
(`cuda_tasks`), and are done in another process (`cuda_work`): one that fails is named below the tables, and if the
device is of no use to its process any more, or there is no answer, a new process goes on. Files are written anew after
each task, what is running when the budget ends is given up, and what there was no time for is named. `--device cpu
--quick` tries the script on models of no meaning in a minute.

Nothing here imports torch: what JAX runs in imports this module again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cuda_report import Record, figure, report
from benchmarks.cuda_tasks import LARGE, Cell, Parity, Peak, Task, planned
from benchmarks.machine import describe
from benchmarks.rows import ROWS, make_case
from benchmarks.sides import Reference
from benchmarks.worker import Process, TaskError, Worker, available_cores, median_of_runs

_SECONDS_A_CELL = 0.5
_MOST_SECONDS = 90.0  # that a task may take, its process's start included


class Device:
    """A process that does tasks on the device, and a new one after a task that it did not survive.

    Args:
        make: makes there what does them.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._process: Process | None = None

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.__exit__()

    def ask(self, request: str, *arguments: Any, timeout: float) -> Any:
        """Asks as `Process` does; errors keep their first line."""
        if self._process is None:
            self._process = Process(self._make, len(available_cores()))
        try:
            return self._process.ask(request, *arguments, timeout=timeout)
        except TaskError as error:
            try:
                self._process.ask("forget", timeout=min(timeout, 20))
            except TaskError:
                self._process.kill()
                self._process = None
            raise error from None


def main(argv: Sequence[str] | None = None) -> int:
    """Maps command line to tables on standard output, and exit status: 1 if our own side failed anywhere."""
    arguments = _parser().parse_args(argv)
    end = time.monotonic() + arguments.budget
    with Device(partial(_on_device, arguments.device, arguments.quick)) as device:
        try:
            machine = {**describe(), **device.ask("describe", timeout=_MOST_SECONDS)}
        except TaskError as error:
            raise SystemExit(f"--device {arguments.device}: {error}") from None
        record = Record(machine=machine, command=_command(arguments))
        for task in planned(
            arguments.rows,
            is_cuda=arguments.device != "cpu",
            is_quick=arguments.quick,
            has_transformers=importlib.util.find_spec("transformers") is not None,
            has_reference=arguments.reference is not None,
        ):
            left = end - time.monotonic()
            if left <= 0:
                record.left_out.append(str(task))
                continue
            try:
                if isinstance(task, Cell) and task.side == "reference":
                    device.ask("forget", timeout=_MOST_SECONDS)  # the card is shared
                    answer = _reference(task, arguments, min(left, _MOST_SECONDS))
                else:
                    answer = device.ask("do", task, _SECONDS_A_CELL, timeout=min(left, _MOST_SECONDS))
                _add(record, task, answer)
            except TaskError as error:
                _add_failure(record, task, error, has_time=time.monotonic() < end)
            _write(record, arguments)
    print(_write(record, arguments))
    return int(bool(record.failures) or any(cell.failure and cell.side.startswith("ours") for cell in record.cells))


def _on_device(name: str, is_quick: bool) -> Any:
    from benchmarks.cuda_work import OnDevice

    return OnDevice(name, is_quick)


def _add(record: Record, task: Task, answer: Any) -> None:
    match task:
        case Peak():
            record.peak_flops[task.precision] = answer
        case Parity():
            record.parity.setdefault(task.row, {})[task.precision] = answer
        case Cell():
            peak, gflop = record.peak_flops.get(task.precision), ROWS[task.row].gflop
            if peak and gflop and "--quick" not in record.command:
                work = gflop * 1e9 * task.batch * (3 if task.section == "training" else 1)
                answer = replace(answer, share=work / answer.seconds / peak)
            record.cells.append(answer)
    print(f"{task}: {figure(answer) if isinstance(answer, Cell) else f'{answer:.3g}'}", file=sys.stderr, flush=True)


def _add_failure(record: Record, task: Task, error: TaskError, has_time: bool) -> None:
    failure = str(error).splitlines()[0]
    if not has_time:
        record.left_out.append(str(task))
    elif isinstance(task, Cell):
        record.cells.append(replace(task, failure=failure))
    else:
        record.failures[str(task)] = failure
    print(f"{task}: {failure}", file=sys.stderr, flush=True)


def _write(record: Record, arguments: argparse.Namespace) -> str:
    """Writes what there is so far to the files that were asked for; returns the Markdown."""
    markdown = report(record)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown, encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return markdown


def _reference(cell: Cell, arguments: argparse.Namespace, seconds: float) -> Cell:
    """Runs DeepMind's code in a process of its own; building counts to its first call."""
    side = Reference(
        case=make_case(ROWS[cell.row], arguments.quick),
        checkout=arguments.reference,
        platform="cpu" if arguments.device == "cpu" else "cuda",
        precision=cell.precision,
        batch=cell.batch,
    )
    if reason := side.why_not():
        return replace(cell, failure=reason)
    with Worker(side, len(available_cores()), timeout=seconds) as worker:
        first = worker.prepare().seconds
        return replace(cell, seconds=median_of_runs(worker.run, _SECONDS_A_CELL), first_call=first)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …, or cpu (default: cuda)")
    parser.add_argument("--rows", nargs="+", choices=list(LARGE), default=list(LARGE), metavar="ROW")
    parser.add_argument("--budget", type=float, default=330, metavar="SECONDS", help="default: 330")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try this script")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help="of google-deepmind/deepmind-research; needs JAX for the device, and Haiku (default: without)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every figure there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="writes the tables there")
    return parser


def _command(arguments: argparse.Namespace) -> str:
    words = ["python -m benchmarks.cuda", f"--device {arguments.device}"]
    if arguments.rows != list(LARGE):
        words.append(f"--rows {' '.join(arguments.rows)}")
    words += ["--reference CHECKOUT"] if arguments.reference is not None else []
    return " ".join([*words, f"--budget {arguments.budget:g}", *(["--quick"] if arguments.quick else [])])


if __name__ == "__main__":
    sys.exit(main())
