"""One row of the comparison: all its sides in processes of their own, taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.machine import busy_core_seconds
from benchmarks.rows import Case, Row
from benchmarks.sides import Ours, PerceiverPytorch, Reference, Side, Transformers
from benchmarks.worker import Memory, Preparation, TaskError, Worker

# The program that decodes several chunks of a clip has so many; more take longer and tell nothing else.
CHUNKS_IN_PROGRAM = 9
_REST = 0.1  # seconds between two sides, in which the threads of the first go to sleep

SIDES: dict[str, Callable[[Case, Path | None], Side]] = {
    "ours": lambda case, _: Ours(case=case),
    "ours-plain": lambda case, _: Ours(case=case, plain=True),
    "reference": lambda case, checkout: Reference(case=case, checkout=checkout),
    "reference-one-program": lambda case, checkout: Reference(
        case=case, checkout=checkout, chunks=min(CHUNKS_IN_PROGRAM, case.video_chunks)
    ),
    "transformers": lambda case, _: Transformers(case=case),
    "perceiver-pytorch": lambda case, _: PerceiverPytorch(case=case),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a side did in a row.

    Attributes:
        seconds: of each repeat, for all the work of the row (see `calculation`).
        calculation: how they follow from what was measured, where that was less than all the work.
        failure: why there is nothing else.
        error: name of the error's type, where it was one.
    """

    seconds: tuple[float, ...] = ()
    calculation: str | None = None
    preparation: Preparation | None = None
    memory: Memory | None = None
    failure: str | None = None
    error: str | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row of the table.

    Attributes:
        sides: results by side.
        disturbance: cores that other processes kept busy while all sides rested; None where that cannot be told.
    """

    row: Row
    sides: Mapping[str, Result]
    disturbance: float | None = None


def measure_row(case: Case, sides: Sequence[str], checkout: Path | None, repeats: int, threads: int) -> RowResult:
    """Runs the sides in turn, `repeats` times after a first run that is not timed."""
    results: dict[str, Result] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in sides:
            if name == "reference-one-program" and case.row.name != "video-clip":
                continue  # differs from the reference in the clip alone
            side = SIDES[name](case, checkout)
            if reason := side.why_not():
                results[name] = Result(failure=reason)
            else:
                workers[name] = stack.enter_context(Worker(side, threads))
                results[name] = Result()

        def attempt(name: str, step: Callable[[Worker, Result], Result]) -> None:
            try:
                results[name] = step(workers[name], results[name])
            except TaskError as error:
                results[name] = Result(failure=f"fails with {error}", error=error.kind)
                del workers[name]

        for name in list(workers):
            attempt(name, lambda worker, so_far: replace(so_far, preparation=worker.prepare()))
        rests: list[float | None] = []
        for _ in range(repeats):
            for name in list(workers):
                rests.append(_rest())
                attempt(name, lambda worker, so_far: replace(so_far, seconds=(*so_far.seconds, worker.run())))
        for name in list(workers):
            attempt(name, lambda worker, so_far: replace(so_far, memory=worker.memory()))
    if case.row.name == "video-clip":
        results = {name: whole_clip(name, result, results, case.video_chunks) for name, result in results.items()}
    known = [busy for busy in rests if busy is not None]
    return RowResult(row=case.row, sides=results, disturbance=statistics.mean(known) if known else None)


def _rest() -> float | None:
    """Lets the threads of the last side go to sleep, then counts the cores that somebody else uses."""
    time.sleep(_REST)
    start, before = time.perf_counter(), busy_core_seconds()
    time.sleep(_REST)
    seconds, after = time.perf_counter() - start, busy_core_seconds()
    return None if before is None or after is None else (after - before) / seconds


def whole_clip(name: str, result: Result, measured: Mapping[str, Result], num_chunks: int) -> Result:
    """Maps what a side measured in the row of the whole clip to what all chunks take it."""
    if name.startswith("ours") or not result.seconds:
        return result
    if name != "reference-one-program":
        seconds = tuple(num_chunks * one for one in result.seconds)
        return replace(result, seconds=seconds, calculation=f"{num_chunks} × one chunk")
    one_chunk = measured.get("reference", Result(failure="not among the sides"))
    if not one_chunk.seconds:
        return Result(failure=f"needs the reference: {one_chunk.failure}")
    more = min(CHUNKS_IN_PROGRAM, num_chunks) - 1
    seconds = tuple(
        first + (num_chunks - 1) * (both - first) / more
        for first, both in zip(one_chunk.seconds, result.seconds, strict=True)
    )
    return replace(result, seconds=seconds, calculation=f"from programs of 1 and of {more + 1} chunks")
