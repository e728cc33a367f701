"""Progress of an evaluation: a bar on a terminal, and elsewhere, such as in a file, a line now and then."""

import sys
import time
from types import TracebackType

from perceiver_io.optional import needs_extra

# Seconds between two lines.
_PAUSE = 30.0


class Progress:
    """Tells on stderr how many samples are done. Short evaluations end before the first line.

    Args:
        done: samples that were measured before.
        number: of all samples.
        processes: that share them; each one's sample stands for as many.
        enabled: False says nothing, as in all processes but the first.

    Raises:
        ImportError: tqdm is missing; it comes with the `evaluate` extra.
    """

    def __init__(self, done: int, number: int, processes: int = 1, *, enabled: bool = True) -> None:
        with needs_extra("the progress bar", "evaluate"):
            from tqdm import tqdm
        self.start = self.done = min(done, number)
        self.number = number
        self.processes = processes
        self.enabled = enabled
        self._bar = tqdm(total=number, initial=self.done, unit="sample", disable=None if enabled else True, leave=False)
        self._begin = self._last_line = time.monotonic()

    def update(self, samples: int) -> None:
        """Tells that this process has measured so many more."""
        more = min(samples * self.processes, self.number - self.done)
        self.done += more
        self._bar.update(more)
        now = time.monotonic()
        if self.enabled and self._bar.disable and now - self._last_line >= _PAUSE:
            rate = (self.done - self.start) / (now - self._begin)
            text = f"{self.done:,} of {self.number:,} samples, {rate:.3g} a second"
            print(text, file=sys.stderr, flush=True)
            self._last_line = now

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self._bar.close()
