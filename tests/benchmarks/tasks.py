"""Tasks of workers, and what does tasks on a device, for tests. Imports no torch: their processes import this."""

import os
import sys
import time
from dataclasses import dataclass

from benchmarks.worker import Prepared


@dataclass(frozen=True)
class BriefAllocation:
    """Needs memory to be built but not to run."""

    size: int

    def load(self) -> None:
        """Imports nothing."""

    def prepare(self) -> Prepared:
        """Takes memory and gives it back."""
        bytearray(self.size)
        return Prepared(run=dict, parameters=5)


@dataclass(frozen=True)
class Failing:
    """Fails in a way that it is told."""

    exit_code: int | None = None

    def load(self) -> None:
        """Imports nothing."""

    def prepare(self) -> Prepared:
        """Fails."""
        if self.exit_code is not None:
            os._exit(self.exit_code)
        raise LookupError("no such layer")


@dataclass(frozen=True)
class ImportedTorch:
    """Says, as its number of parameters, whether torch is there."""

    def load(self) -> None:
        """Imports nothing."""

    def prepare(self) -> Prepared:
        """Looks."""
        return Prepared(run=dict, parameters=int("torch" in sys.modules))


class Breakable:
    """In place of a device: does what it is told to."""

    def __init__(self) -> None:
        self._is_broken = False

    def forget(self) -> None:
        """Fails from some failures on."""
        if self._is_broken:
            raise RuntimeError("an illegal memory access was encountered")

    def do(self, task: str) -> int:
        """Returns the number of its process, where it is told nothing else."""
        self.forget()
        match task:
            case "fail":
                raise ValueError("first line\nsecond line")
            case "break":
                self._is_broken = True
                raise RuntimeError("an illegal memory access was encountered")
            case "die":
                os._exit(3)
            case "hang":
                time.sleep(60)
        return os.getpid()
