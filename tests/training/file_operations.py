"""Something that happens after any one of the file operations of a block: a kill, an interruption, an error.

Counted are Python's calls to the operating system that change files, and writes to files that are opened within the
block, by whoever writes to them.
"""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHANGING = {"open", "mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir", "fsync", "truncate", "chmod"}
KILLED = 77


@contextmanager
def after_operation(
    number: int, act: Callable[[], object], names: set[str] = CHANGING | {"write"}
) -> Iterator[list[str]]:
    """Within the block `act` is called right after the operation of this number, from 1, of those with these names.

    Yields the names of the operations so far.
    """
    done: list[str] = []
    open_path = Path.open

    def count(name: str) -> None:
        if name in names:
            done.append(name)
            if len(done) == number:
                sys.setprofile(None)
                act()

    def profile(frame: Any, event: str, function: Any) -> None:
        if event == "c_return" and getattr(function, "__module__", None) in ("posix", "_io", "io"):
            count(function.__name__)

    class Counted(io.FileIO):
        def write(self, data: Any) -> int:
            written = super().write(data)
            count("write")
            return written

    def opened(path: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        return Counted(path, mode.replace("b", "")) if mode == "w+b" else open_path(path, mode, *options, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", opened)
        sys.setprofile(profile)
        try:
            yield done
        finally:
            sys.setprofile(None)


def dies_after(number: int, run: Callable[[], object]) -> bool:
    """Runs something in a process of its own, which is killed after an operation; whether it came to that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            with after_operation(number, lambda: os._exit(KILLED)):
                run()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED
