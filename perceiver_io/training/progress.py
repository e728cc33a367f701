"""Progress of a run: a bar on a terminal, and elsewhere, such as in a file, a line now and then."""

import sys
import time
from collections.abc import Mapping

from perceiver_io.optional import needs_extra

# Shares of the time that are told of.
_SHARES = {"data_wait": "waiting for data", "utilisation": "of the device"}

# Seconds between two lines.
_PAUSE = 30.0


class Progress:
    """Tells of steps on stderr. The first one is told of at once, so that one sees that the run has begun.

    Args:
        start: steps that were done before.
        num_steps: of the whole run.
        enabled: False says nothing, as in all processes of several but the first.

    Raises:
        ImportError: tqdm is missing; it comes with the `train` extra.
    """

    def __init__(self, start: int, num_steps: int, *, enabled: bool = True) -> None:
        with needs_extra("the progress bar", "train"):
            from tqdm import tqdm
        self.start = start
        self.num_steps = num_steps
        self.enabled = enabled
        self._bar = tqdm(total=num_steps, initial=start, unit="step", disable=None if enabled else True)
        self._begin = time.monotonic()
        self._last_line: float | None = None
        if enabled and self._bar.disable:
            self._say(f"{start} of {num_steps} steps are done" if start else f"{num_steps} steps to go")

    def update(self, step: int, loss: float | None = None, pace: Mapping[str, float] | None = None) -> None:
        """Tells that a step is done.

        Args:
            loss: where it is known.
            pace: see `Pace.figures`; other figures in it are left out.
        """
        self._bar.update()
        now = time.monotonic()
        if loss is None or not self.enabled:
            return
        shares = {text: f"{pace[name]:.0%}" for name, text in _SHARES.items() if pace and name in pace}
        self._bar.set_postfix(loss=f"{loss:.4g}", **shares)
        is_due = self._last_line is None or now - self._last_line >= _PAUSE or step == self.num_steps
        if self._bar.disable and is_due:
            seconds = (now - self._begin) / (step - self.start)
            parts = "".join(f", {text} {share}" for text, share in shares.items())
            self._say(f"step {step} of {self.num_steps}: loss {loss:.4g}, {seconds:.2g} s a step{parts}")
            self._last_line = now

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
