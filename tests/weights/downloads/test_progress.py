"""What a person sees of a download."""

import sys
from importlib.util import find_spec

import pytest

from perceiver_io.weights.downloads.progress import Progress, ProgressBar, ProgressLines, progress_on_stderr


def test_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines("model")
    for received in (0, 99, 100, 150, 999, 1000, 0):  # the last starts again
        lines.show(received, 1000)
    lines.note("trying again")
    assert capsys.readouterr().err.splitlines() == [
        "model: 0 % of 0.0 MB",
        "model: 10 % of 0.0 MB",
        "model: 90 % of 0.0 MB",
        "model: 100 % of 0.0 MB",
        "model: 0 % of 0.0 MB",
        "trying again",
    ]


def test_a_line_for_every_100_mb_of_an_unknown_size(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines("model")
    for received in (0, 60_000_000, 120_000_000, 130_000_000, 900_000_000):
        lines.show(received, None)
    assert capsys.readouterr().err.splitlines() == ["model: 0 MB", "model: 100 MB", "model: 900 MB"]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_on_stderr("model") as progress:
        assert isinstance(progress, ProgressBar)
        for received in (500_000, 3_000_000, 1_000_000):
            progress.show(received, 4_000_000)
        assert (progress.bar.n, progress.bar.total) == (1_000_000, 4_000_000)
        progress.note("trying again")
    output = capsys.readouterr()
    assert "1.00M/4.00M" in output.err
    assert "trying again" in output.err
    assert output.out == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_without_tqdm_or_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(
        "perceiver_io.weights.downloads.progress.find_spec", lambda name: None if terminal else find_spec(name)
    )
    with progress_on_stderr("model") as progress:
        assert isinstance(progress, ProgressLines)


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().show(1, None)
    Progress().note("trying again")
    assert capsys.readouterr() == ("", "")
