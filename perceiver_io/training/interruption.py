"""Signals that end a run: they wait for the step at hand, so that its state can be saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes SIGINT (Ctrl-C) and SIGTERM instead of raising KeyboardInterrupt at once; a context manager.

    A second signal ends a single process at once. Of several processes each gets more than one: from the terminal and
    from `torchrun`, which kills them in the end.

    Args:
        alone: whether this process trains alone.

    Attributes:
        is_requested: whether there was a signal.
    """

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        self.is_requested = False
        self._at_once = False
        self._usual: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            self._usual = {kind: signal.signal(kind, self._note) for kind in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal raises KeyboardInterrupt at once: there is nothing that would be lost.

        Raises:
            KeyboardInterrupt: also if there was a signal before.
        """
        if self.is_requested:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._at_once or (self.is_requested and self.alone):
            raise KeyboardInterrupt
        if not self.is_requested:
            # Not by print, which the signal may have come amidst.
            os.write(2, b"interrupted: the step at hand is finished and the state saved\n")
        self.is_requested = True


def obey_the_trainer_alone(worker: int) -> None:
    """Makes a process that loads data outlive signals to all processes, until the trainer has finished its step.

    Ctrl-C reaches all processes of a terminal, and whoever ends a job often signals all of its processes. The trainer
    ends its workers with a SIGTERM, where they do not end by themselves.

    Args:
        worker: its number, as `DataLoader` gives it to `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_the_trainer, daemon=True).start()


def _wait_for_the_trainer() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
