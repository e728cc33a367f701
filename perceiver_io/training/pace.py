"""The pace of a run: examples a second, time spent waiting for data, and the share of the device that is used."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Measures steps, and what of their time is waiting for data.

    A GPU is behind: steps end long before it is done with them. So the clock runs on from one time that it was waited
    for to another.

    Args:
        examples: of a step in this process.
        example_flops: operations that an example takes, forwards and backwards; what gradient checkpointing computes
            again left out, as usual. None if they are not known.
        peak_flops: operations a second that the device can do; None if they are not known.
    """

    def __init__(self, examples: int, example_flops: int | None = None, peak_flops: float | None = None) -> None:
        self._examples = examples
        self._work = None if example_flops is None or peak_flops is None else examples * example_flops / peak_flops
        self.start()

    def start(self) -> None:
        """Begins to measure."""
        self._begin = time.perf_counter()
        self._steps, self._waited, self._aside = 0, 0.0, 0.0

    def step(self) -> None:
        """Counts a step, which the device may not be done with."""
        self._steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the block as waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the block's time out: an evaluation's, say, before which the device was waited for."""
        begin = time.perf_counter()
        yield
        self._aside += time.perf_counter() - begin

    def figures(self) -> dict[str, float]:
        """The figures of the steps since this was last asked for; ask when the device was waited for.

        They are "examples_per_second", of this process; "data_wait", the share of the time that was waiting for data;
        and "utilisation", the share of the device's most operations (MFU), where these are known.
        """
        seconds = max(time.perf_counter() - self._begin - self._aside, 1e-9)
        figures = {"examples_per_second": self._steps * self._examples / seconds, "data_wait": self._waited / seconds}
        if self._work is not None:
            figures["utilisation"] = self._steps * self._work / seconds
        self.start()
        return figures
