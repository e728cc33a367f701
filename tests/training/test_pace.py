"""The pace of a run, on a clock that the test turns."""

import pytest

from perceiver_io.training import pace
from perceiver_io.training.pace import Pace


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_figures_are_of_the_steps_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    run = Pace(12, example_flops=50, peak_flops=1000.0)

    def step(waited: float, computed: float) -> None:
        with run.waiting():
            clock.now += waited
        clock.now += computed
        run.step()

    clock.now += 99.0  # what comes before the first step is no part of it
    run.start()
    step(1.0, 3.0)
    step(0.0, 2.0)
    with run.aside():
        clock.now += 77.0  # an evaluation is no part of a step
    assert run.figures() == pytest.approx({"examples_per_second": 4.0, "data_wait": 1 / 6, "utilisation": 0.2})
    step(0.0, 3.0)
    assert run.figures() == pytest.approx({"examples_per_second": 4.0, "data_wait": 0.0, "utilisation": 0.2})


def test_what_is_not_known_is_left_out() -> None:
    run = Pace(12, example_flops=50)
    run.step()
    assert run.figures().keys() == {"examples_per_second", "data_wait"}
