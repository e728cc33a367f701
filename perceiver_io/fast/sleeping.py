"""Threads that sleep while they wait for one another, rather than keep a core from those that work.

PyTorch's threads on a CPU share an operation and wait for the slowest of them at its end. GNU's OpenMP, which its
builds for Linux bring, has them wait awake for a while, which is the fastest where nobody else wants the cores, and
takes several times as long where somebody does: the one that works gets no core while the others wait. That is asked
of it before Python starts (`OMP_WAIT_POLICY=passive`), or by a rule in its manual, under `GOMP_SPINCOUNT`: with more
threads than there are cores, none of them waits awake for long. So threads are added that have nothing to do.
"""

import os
import threading
from pathlib import Path

import torch

# So many idle teams at most: where they are more, there are cores for those that wait.
_MOST_TEAMS = 8
_idle: list[threading.Thread] = []
_lock = threading.Lock()


def sleep_while_waiting() -> bool:
    """Has PyTorch's threads on the CPU sleep while they wait for one another, for as long as the process lives.

    Call it where other programs run on the same cores. A language model's call on two cores, one of them busy, takes
    1.75 times as long as on two free ones, rather than 3.1 times; on free ones it takes 3 % more time than without
    (`python -m benchmarks.compare --neighbour`). Results are the same. With one thread
    (`torch.set_num_threads(1)`) nobody waits, and nothing is to be done. Source: libgomp's manual, `GOMP_SPINCOUNT`.

    Returns:
        Whether they do now; False where PyTorch has another OpenMP than GNU's, or a fraction of the cores.
    """
    size, cores = torch.get_num_threads(), len(_cores())
    if size == 1 or not _is_gnu():
        return False
    num_teams = (cores - 1) // (size - 1)  # each brings all of its threads but one
    if num_teams > _MOST_TEAMS:
        return False
    with _lock:
        while len(_idle) < num_teams:
            is_there = threading.Event()
            _idle.append(threading.Thread(target=_idle_team, args=(size, is_there), name="idle", daemon=True))
            _idle[-1].start()
            is_there.wait()
    return True


def _idle_team(size: int, is_there: threading.Event) -> None:
    """Makes a team of threads, by an operation that is large enough for all, and keeps it."""
    try:
        torch.zeros(size * 2**16, device="cpu").add_(1)
    finally:
        is_there.set()
    threading.Event().wait()


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _is_gnu() -> bool:
    maps = Path("/proc/self/maps")
    return maps.is_file() and "libgomp" in maps.read_text(encoding="utf-8", errors="replace")
