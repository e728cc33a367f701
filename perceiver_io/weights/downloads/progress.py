"""Progress of a download, as a person sees it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from perceiver_io.terminal import one_line


class Progress:
    """Shows nothing; the base of those that do."""

    def show(self, received: int, total: int | None) -> None:
        """Takes the bytes received so far, fewer than before where a transfer starts again, and how many there are."""

    def note(self, line: str) -> None:
        """Takes a line about something unusual."""


class ProgressLines(Progress):
    """Prints a line to stderr for every tenth of the file, or every 100 MB of one whose size is not known."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._printed: str | None = None

    def show(self, received: int, total: int | None) -> None:
        """Prints a line if there is news."""
        if total:
            line = f"{self.name}: {received * 10 // total * 10} % of {total / 1e6:,.1f} MB"
        else:
            line = f"{self.name}: {received // 100_000_000 * 100} MB"
        if line != self._printed:
            self.note(line)
            self._printed = line

    def note(self, line: str) -> None:
        """Prints the line to stderr."""
        print(one_line(line), file=sys.stderr, flush=True)


class ProgressBar(Progress):
    """Moves a bar of tqdm."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def show(self, received: int, total: int | None) -> None:
        """Moves the bar."""
        self.bar.total = total
        self.bar.update(received - self.bar.n)

    def note(self, line: str) -> None:
        """Prints the line above the bar."""
        self.bar.write(one_line(line), file=sys.stderr)


@contextmanager
def progress_on_stderr(name: str) -> Iterator[Progress]:
    """Yields a bar if stderr is a terminal and tqdm is installed, else lines."""
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        yield ProgressLines(name)
        return
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True) as bar:
        yield ProgressBar(bar)
