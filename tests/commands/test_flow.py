"""`perceiver-io flow`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.media import read_flo

Run = Callable[..., str]
RunJson = Callable[..., dict[str, Any]]


@pytest.fixture
def frames(inputs: Path) -> list[Path]:
    return [inputs / "frame_1.png", inputs / "frame_2.png"]


def test_motion_is_computed(run: Run, checkpoints: dict[str, Path], frames: list[Path]) -> None:
    printed = run("flow", "--checkpoint", checkpoints["flow"], "--frames", *frames)
    assert printed.splitlines() == [
        f"model: {checkpoints['flow']}",
        "motion in pixels: mean 0.00, fastest 0.00",
        "no motion anywhere: the last layer of an untrained flow model is zero",
        "wrote outputs/optical_flow.png, outputs/optical_flow.flo",
    ]
    assert sorted(file.name for file in Path("outputs").iterdir()) == ["optical_flow.flo", "optical_flow.png"]


def test_json_and_the_table_hold_the_same(run_json: RunJson, checkpoints: dict[str, Path], frames: list[Path]) -> None:
    model = perceiver_io.load_model(checkpoints["flow"])
    for parameter in model.decoder.parameters():
        parameter.data.normal_()
    perceiver_io.save_model(model, "moving")
    result = run_json("flow", "--checkpoint", "moving", "--frames", *frames, "--output", "here.pdf")
    assert result["files"] == ["here.pdf", "here.flo"]
    flow = read_flo("here.flo")
    assert flow.shape == (2, result["height"], result["width"]) == (2, 12, 17)
    assert result["fastest_motion"] == pytest.approx(flow.norm(dim=0).max().item())
    assert result["mean_motion"] == pytest.approx(flow.norm(dim=0).mean().item())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_told_on_terminals_only(
    is_terminal: bool,
    checkpoints: dict[str, Path],
    frames: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    main(["flow", "--checkpoint", str(checkpoints["flow"]), "--frames", *map(str, frames), "--json"])
    output = capsys.readouterr()
    assert ("tiles" in output.err) == is_terminal
    assert is_terminal or output.err == ""
    assert output.out.startswith("{")
