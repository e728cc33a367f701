"""Fingerprints of data, which tell the data that a run has learned from so far from others when it is resumed.

A data set that has a method `fingerprint` is asked for it: names, sizes and content of its files, or samples of the
content if there is much, its settings. They are the same on other machines, and wherever the files lie. Of one without
it a few examples are looked at: their figures are compared up to rounding, since another number of threads may round
otherwise.
"""

import dataclasses
import hashlib
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from perceiver_io.training.data.row_pictures import RowPicture
from perceiver_io.training.data.tar_files import TarMember
from perceiver_io.training.sampling import Draw

_TOLERANCE = 1e-3
# What content of more than 4 MiB is known by: so many pieces of so many bytes, evenly spread.
_PIECES, _PIECE = 1024, 4096
# Of pictures in rows, so many are read.
_ROWS = 64


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that says what tells it from others."""

    def fingerprint(self) -> str:
        """Maps the data to a text that differs if they do."""


def fingerprint(dataset: Any, draws: Sequence[Draw]) -> str | list[list[float]]:
    """Maps a data set to its fingerprint: its own, or figures of the examples of some draws."""
    return own_fingerprint(dataset) or [_figures(dataset, draw) for draw in draws]


def own_fingerprint(dataset: Any) -> str:
    """Maps a data set to what its method `fingerprint` says, or to nothing without one; for those that wrap others."""
    return dataset.fingerprint() if isinstance(dataset, Fingerprinted) else ""


def _figures(dataset: Any, draw: Draw) -> list[float]:
    try:
        example = dataset[draw]
    except Exception:  # of whatever kind: it will be raised, or left out, when its turn comes
        return []
    figures: list[float] = []
    for name in sorted(example):
        values = torch.as_tensor(example[name]).detach().cpu().double().flatten()
        # A sum of the values would not see their order.
        weights = torch.linspace(1, 2, len(values), dtype=torch.float64)
        figures += [float(len(values)), float((values * weights).mean()), float(values.square().mean().sqrt())]
    return figures


def same(first: Any, second: Any) -> bool:
    """Whether two fingerprints are of the same data. An example that could not be read agrees with any."""
    if not (isinstance(first, list) and isinstance(second, list)):
        return bool(first == second)
    return len(first) == len(second) and all(
        not one or not other or (len(one) == len(other) and all(map(_close, one, other)))
        for one, other in zip(first, second, strict=True)
    )


def _close(first: float, second: float) -> bool:
    is_number = math.isfinite(first) and math.isfinite(second)
    return (
        math.isclose(first, second, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) if is_number else str(first) == str(second)
    )


def files_digest(parts: Iterable[Path | TarMember | RowPicture | int]) -> str:
    """Maps files, and numbers such as their labels, in order to a digest of the numbers, names, sizes and content.

    Of a path the last two names count, and of rows, which have no sizes, the content of some. A file that is not there
    has no size. Of much content samples are read.
    """
    digest = hashlib.sha256()
    files: list[tuple[Path, int, int]] = []  # where they lie, from which byte on, and how many bytes
    rows: list[RowPicture] = []
    for part in parts:
        if isinstance(part, int):
            digest.update(b"%d\0" % part)
            continue
        if isinstance(part, RowPicture):
            rows.append(part)
            continue
        if isinstance(part, TarMember):
            digest.update(os.fsencode(f"{part.archive.name}/{part.name}\0{part.size}\0"))
            files.append((part.archive, part.start, part.size))
            continue
        try:
            size = part.stat().st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(f"{part.parent.name}/{part.name}\0{size}\0"))
        files.append((part, 0, max(size, 0)))

    for row in rows[:: max(1, len(rows) // _ROWS)]:
        digest.update(hashlib.sha256(row.read()).digest())

    def read(number: int, start: int, end: int) -> bytes:
        try:
            path, first, _ = files[number]
            with path.open("rb") as file:
                file.seek(first + start)
                return file.read(end - start)
        except OSError:  # it will be raised, or left out, when its turn comes
            return b""

    digest.update(content_digest([size for _, _, size in files], read).encode())
    return digest.hexdigest()


def content_digest(sizes: Sequence[int], read: Callable[[int, int, int], bytes]) -> str:
    """Maps things that lie end to end to a digest of their bytes, or of samples if there are many.

    Args:
        sizes: of the things, in bytes.
        read: maps the number of a thing, a start and an end in it to the bytes there.
    """
    ends = list(accumulate(sizes))
    total = ends[-1] if ends else 0
    digest = hashlib.sha256(str(total).encode())
    for piece in range(0, total, max(total // _PIECES, _PIECE)):
        start, end = piece, min(piece + _PIECE, total)
        while start < end:
            number = bisect_right(ends, start)
            begin, stop = ends[number] - sizes[number], min(end, ends[number])
            digest.update(read(number, start - begin, stop - begin))
            start = stop
    return digest.hexdigest()


def described(settings: Any) -> str:
    """Maps settings to a text that is the same in every process: their fields, or the name of their kind."""
    if dataclasses.is_dataclass(settings):
        return repr(settings)
    return getattr(settings, "__qualname__", type(settings).__qualname__)
