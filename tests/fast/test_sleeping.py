"""Threads that sleep while they wait for one another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceiver_io.fast import sleep_while_waiting, sleeping

_SWITCHES = """
import resource, threading, torch
from perceiver_io.fast import sleep_while_waiting

def sleeps():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(300):
        rows.add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

rows = torch.zeros(2**18)
sleeps()
before = sleeps()
assert sleep_while_waiting()
assert sleep_while_waiting()
assert threading.active_count() == 2
assert (rows == 600).all()
print(before, sleeps())
"""


@pytest.mark.skipif(not sleeping._is_gnu() or len(sleeping._cores()) != 2, reason="needs GNU's OpenMP and two cores")
def test_threads_sleep() -> None:
    words = [sys.executable, "-c", _SWITCHES]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ended = subprocess.run(
        words, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True
    )
    before, after = map(int, ended.stdout.split())
    assert after >= 300  # one thread each time, at least
    assert after >= before  # 0 on a quiet machine


def test_nothing_is_done_for_one_thread() -> None:
    assert torch.get_num_threads() == 1
    assert not sleep_while_waiting()


@pytest.mark.parametrize(
    ("threads", "cores", "teams"), [(2, 2, 1), (8, 16, 2), (16, 16, 1), (32, 64, 2), (2, 64, None)]
)
def test_teams_outnumber_the_cores(
    threads: int, cores: int, teams: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def idle(size: int, is_there: object) -> None:
        made.append(size)
        is_there.set()  # type: ignore[attr-defined]

    monkeypatch.setattr(sleeping, "_idle", [])
    monkeypatch.setattr(sleeping, "_idle_team", idle)
    monkeypatch.setattr(sleeping, "_is_gnu", lambda: True)
    monkeypatch.setattr(sleeping, "_cores", lambda: set(range(cores)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for _ in range(2):
        assert sleep_while_waiting() == (teams is not None)
    assert made == [threads] * (teams or 0)
    if teams:  # GNU's count of its threads: the first, and all but one of each team, the main one's too
        assert 1 + (teams + 1) * (threads - 1) > cores >= 1 + teams * (threads - 1)
