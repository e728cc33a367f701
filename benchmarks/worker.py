"""A process that prepares one task and then runs it as often as its parent asks, so that memory is the task's own.

The parent speaks through a pipe: "prepare", then "run" any number of times, then "memory"; each is answered with one
object, or with the error that came instead. The process imports the parent's main module again (Python's way of
spawning), so that one that is run as a script imports torch only when it does something: JAX's process wants none.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

Self = TypeVar("Self", bound="Process")

# Not inherited from the user's shell, where they would favour one side.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task ready to run.

    Attributes:
        run: does the work to its end (nothing left in a queue) and returns the outputs by name.
        parameters: number of trained values, by which the parent sees whether two sides run the same model.
    """

    run: Callable[[], Mapping[str, Any]]
    parameters: int = 0


class Task(Protocol):
    """What a worker runs; travels to it by pickle, so it imports what it needs only when it is there."""

    def load(self) -> None:
        """Imports the libraries, which count as the memory that a process has before the model."""

    def prepare(self) -> Prepared:
        """Builds the model and its inputs."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What came of preparing: the size of the model, the shapes of its outputs, and seconds including a first run."""

    parameters: int
    outputs: dict[str, tuple[int, ...]]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory of a worker in bytes.

    Attributes:
        baseline: with the libraries imported and no model yet.
        peak: the highest, from the start of the process to the end of the last run.
        steady: the highest after the first run, which leaves out building and compiling; None where the kernel does not
            let a process restart its high-water mark.
    """

    baseline: int
    peak: int
    steady: int | None


class TaskError(Exception):
    """A task failed in its worker.

    Attributes:
        kind: name of the type of the error there.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Process:
    """The parent's end of a process that answers requests by methods of an object; a context manager that ends it.

    Args:
        make: makes the object there; travels by pickle, and so does what is asked and answered.
        threads: processor cores that the process may use.
    """

    def __init__(self, make: Callable[[], Any], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, threads), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it may have died
            self._connection.send(None)
        self._process.join(timeout=10)
        self.kill()

    def kill(self) -> None:
        """Ends it without asking, if it has not ended."""
        self._process.kill()
        self._process.join(timeout=10)  # a driver may hold it

    def ask(self, request: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Calls a method.

        Args:
            timeout: seconds that the answer may take, after which the process is killed; None for any.

        Raises:
            TaskError: for any error there, and for no answer.
        """
        try:
            self._connection.send((request, arguments))
            if not self._connection.poll(timeout):
                self.kill()
                raise TaskError("TimeoutError", f"no answer within {timeout:.0f} s")
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=10)
            raise TaskError("WorkerDied", f"exit code {self._process.exitcode}; -9 is mostly lack of memory") from None
        if error is not None:
            raise TaskError(*error)
        return answer


class Worker(Process):
    """A process that prepares a task and runs it.

    Args:
        task: what to run.
        threads: processor cores that the process may use.
        timeout: seconds that an answer may take; None for any.
    """

    def __init__(self, task: Task, threads: int, timeout: float | None = None) -> None:
        self._timeout = timeout
        super().__init__(partial(_Server, task), threads)

    def prepare(self) -> Preparation:
        """Builds the task and runs it once, untimed."""
        answer: Preparation = self.ask("prepare", timeout=self._timeout)
        return answer

    def run(self) -> float:
        """Runs it once; returns seconds."""
        answer: float = self.ask("run", timeout=self._timeout)
        return answer

    def memory(self) -> Memory:
        """The memory it has taken so far."""
        answer: Memory = self.ask("memory", timeout=self._timeout)
        return answer


def median_of_runs(once: Callable[[], float], seconds: float, *, most: int = 20) -> float:
    """The median of what runs take: three at least, and more while they take less than `seconds` together."""
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < seconds and len(taken) < most):
        taken.append(once())
    return statistics.median(taken)


def available_cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _serve(connection: Connection, make: Callable[[], Any], threads: int) -> None:
    """The worker's end."""
    _limit_threads(threads)
    server = make()
    while (asked := connection.recv()) is not None:
        request, arguments = asked
        answer: tuple[tuple[str, str] | None, Any]
        try:
            answer = (None, getattr(server, request)(*arguments))
        except Exception as error:  # whatever a peer raises is a result
            answer = ((type(error).__name__, str(error)), None)
        connection.send(answer)


class _Server:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._baseline = 0
        self._peak_before: int | None = None

    def prepare(self) -> Preparation:
        self._task.load()
        self._baseline = _status("VmRSS")
        start = time.perf_counter()
        prepared = self._task.prepare()
        self._run = prepared.run
        outputs = {name: tuple(output.shape) for name, output in self._run().items()}
        seconds = time.perf_counter() - start
        peak = _status("VmHWM")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS
            self._peak_before = peak
        return Preparation(parameters=prepared.parameters, outputs=outputs, seconds=seconds)

    def run(self) -> float:
        start = time.perf_counter()
        self._run()
        return time.perf_counter() - start

    def memory(self) -> Memory:
        now = _status("VmHWM")
        if self._peak_before is None:
            return Memory(baseline=self._baseline, peak=now, steady=None)
        return Memory(baseline=self._baseline, peak=max(now, self._peak_before), steady=now)


def _limit_threads(threads: int) -> None:
    """Before anything that makes threads is imported: the same cores for all libraries, whatever they call them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(available_cores())[:threads])  # XLA takes as many threads as it has cores
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is no such file."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
