"""Errors of the processes that load data, as these raised them: PyTorch passes on their tracebacks as the message."""

import re
from collections.abc import Iterable, Iterator

from perceiver_io.training.settings import Batch

_PASSED_ON = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\n")


def as_raised(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the batches of a loader, whose processes begin at once.

    Raises:
        Exception: what a process raised, with its message alone; the traceback is in its cause.
    """
    return _as_raised(iter(batches))


def _as_raised(batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except Exception as error:
        passed_on = _PASSED_ON.match(str(error))
        if passed_on is None:
            raise
        # The last traceback ends with the error; those of its causes come before.
        *_, message = re.split(rf"^(?:[\w.]+\.)?{passed_on[1]}: ", str(error), flags=re.MULTILINE)
        raise type(error)(message.strip()) from error
