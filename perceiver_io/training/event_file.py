"""A file of figures that TensorBoard shows, written in the thread that has them.

PyTorch's `SummaryWriter` writes in another, whose errors come late and print a traceback of their own.
"""

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from perceiver_io.optional import needs_extra


class EventFile:
    """One run's event file, or that of a part of it which was resumed.

    Args:
        directory: made if it is not there.
        purge_step: figures of earlier files from this step on are not shown.

    Raises:
        ImportError: TensorBoard is missing; it comes with the `train` extra.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        with needs_extra("a log of the training", "train"):
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        self._file = (directory / name).open("wb")
        self._records = RecordWriter(self._file)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(self._event(wall_time=time.time(), step=purge_step, session_log=start))
        self._file.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the figures of a step, which are in the file when this returns."""
        figures = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=figures)))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: object) -> None:
        self._records.write(event.SerializeToString())  # type: ignore[attr-defined]
