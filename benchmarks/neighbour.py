"""How much a busy neighbour slows the sides down: another process that keeps one of their cores busy all the time.

A side is slowed down by more than its share of the core if its threads wait for one another at every small step, since
each wait lasts until the neighbour is interrupted. The sides take turns, alone and with the neighbour.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import SIDES
from benchmarks.rows import Case
from benchmarks.sides import Ours, Side
from benchmarks.worker import TaskError, Worker, available_cores

# Ours as it is for people with a neighbour: measured wherever ours is.
_ASLEEP = "ours-asleep"
_SIDES: dict[str, Callable[[Case, Path | None], Side]] = {
    **SIDES,
    _ASLEEP: lambda case, _: Ours(case=case, sleeps=True),
}
_REST = 0.1  # seconds, in which the threads of the last side go to sleep
_PAYLOAD = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {{{core}}})
print(flush=True)
while os.getppid() == {parent}:
    for _ in range(100_000):
        pass
"""


@dataclass(kw_only=True)
class Slowing:
    """What a side took for a row, in seconds.

    Attributes:
        alone: of each repeat without the neighbour.
        beside: of each repeat with it.
        failure: why there is nothing.
    """

    row: str
    side: str
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def ratio(self) -> float:
        """Median with the neighbour by median without."""
        return statistics.median(self.beside) / statistics.median(self.alone)


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keeps the first core that the sides use busy."""
    code = _PAYLOAD.format(core=min(available_cores()), parent=os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            yield
        finally:
            process.kill()


def measure_slowing(
    case: Case, sides: Sequence[str], checkout: Path | None, repeats: int, threads: int
) -> list[Slowing]:
    """Runs the sides of a row in turn, alone and beside a neighbour, `repeats` times after a run that is not timed."""
    sides = [*sides, _ASLEEP] if "ours" in sides else sides
    results = {name: Slowing(row=case.row.title, side=name) for name in sides}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in sides:
            side = _SIDES[name](case, checkout)
            if reason := side.why_not():
                results[name].failure = reason
                continue
            worker = stack.enter_context(Worker(side, threads))
            try:
                worker.prepare()
                workers[name] = worker
            except TaskError as error:
                results[name].failure = f"fails with {error}"
        for _ in range(repeats):
            for name, worker in workers.items():
                time.sleep(_REST)
                results[name].alone.append(worker.run())
            with busy_neighbour():
                for name, worker in workers.items():
                    time.sleep(_REST)
                    results[name].beside.append(worker.run())
    return list(results.values())


def slowing_table(results: Sequence[Slowing]) -> str:
    """Maps results to a Markdown table, and the reasons for those that are missing."""
    lines = ["| | side | alone | beside a busy neighbour | slower by |", "| --- | --- | ---: | ---: | ---: |"]
    notes = []
    for result in results:
        if result.failure is not None:
            notes.append(f"* {result.side}: {result.failure} ({result.row})")
            continue
        alone, beside = statistics.median(result.alone), statistics.median(result.beside)
        lines.append(f"| {result.row} | {result.side} | {alone:.3g} s | {beside:.3g} s | {result.ratio:.2f}× |")
    head = "Time alone, and beside a process that keeps one of the cores busy.\n\n"
    return head + "\n".join(lines) + "\n" + "".join(f"\n{note}" for note in notes) + ("\n" if notes else "")
