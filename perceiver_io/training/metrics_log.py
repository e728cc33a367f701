"""The figures of a run, as lines of JSON and for TensorBoard."""

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from perceiver_io.atomic import new_file
from perceiver_io.training.event_file import EventFile

METRICS_FILE = "metrics.jsonl"


@runtime_checkable
class Mirror(Protocol):
    """Another place that figures are sent to, such as `WandbLog`."""

    def begin(self, directory: Path, start_step: int) -> None:
        """Prepares for the figures of a run, or of the rest of one."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Takes the figures of a step, named "training/loss" and so on."""


class MetricsLog:
    """Writes figures, with the seconds that the run has taken, to `metrics.jsonl` and `tensorboard/`.

    A context manager.

    Args:
        directory: of the run.
        start_step: updates that were done before; figures of later ones, from a run that was killed, are dropped.
        mirror: gets the figures, too.

    Raises:
        ImportError: TensorBoard is missing; it comes with the `train` extra.
    """

    def __init__(self, directory: Path, start_step: int, mirror: Mirror | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_FILE
        kept = [record for record in read_metrics(path) if record["step"] <= start_step] if start_step else []
        with new_file(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self._logged = {(record["step"], record["kind"]) for record in kept}
        self._begin = time.monotonic() - (kept[-1]["seconds"] if kept else 0)
        self._path, self._board_path = path, directory / "tensorboard"
        with _named(self._board_path):
            self._board = EventFile(self._board_path, start_step + 1)
        self._file = path.open("ab", buffering=0)
        self._mirror = mirror
        if mirror is not None:
            mirror.begin(directory, start_step)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Logs figures.

        Args:
            step: updates done.
            kind: what the figures describe: "training" or "evaluation".
        """
        seconds = round(time.monotonic() - self._begin, 3)
        line = json.dumps({"step": step, "kind": kind, "seconds": seconds, **values}).encode() + b"\n"
        with _named(self._path):
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        named = {f"{kind}/{name}": float(value) for name, value in values.items()}
        with _named(self._board_path):
            self._board.write(step, named)
        if self._mirror is not None:
            self._mirror.write(step, named)
        self._logged.add((step, kind))

    def has(self, step: int, kind: str) -> bool:
        """Whether there are figures of a kind for a step."""
        return (step, kind) in self._logged

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        # Another error than the one that ends the run would hide it.
        with suppress(OSError) if error else _named(self._board_path):
            self._board.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Gives errors of the system within the block, such as that of a full disk, the path that they are about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Maps `metrics.jsonl` to its records; none if there is no file, and without a last line that was cut off.

    Raises:
        ValueError: if another line is damaged.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            if not {"step", "kind", "seconds"} <= record.keys():
                raise ValueError("it is no record of figures")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"line {number} of {path} is damaged ({error}); remove the line, or the file") from error
        records.append(record)
    return records
