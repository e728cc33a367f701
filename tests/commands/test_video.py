"""`perceiver-io video`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_io.commands.cli import main
from perceiver_io.media import read_audio, read_video, write_gif

Run = Callable[..., str]
RunJson = Callable[..., dict[str, Any]]


def test_clips_are_rebuilt(run: Run, checkpoints: dict[str, Path], inputs: Path) -> None:
    printed = run("video", "--checkpoint", checkpoints["video"], "--video", inputs / "video.mp4", "--clips", 2)
    assert re.findall(r"clip \d:", printed) == ["clip 1:", "clip 2:"]
    assert printed.count("class ") == 10
    assert printed.endswith("wrote outputs/video_autoencoding.mp4, outputs/video_autoencoding.wav\n")
    assert sorted(file.name for file in Path("outputs").iterdir()) == [
        "video_autoencoding.mp4",
        "video_autoencoding.wav",
    ]
    # Two clips of three frames, with 20 samples for each of 25 frames a second.
    assert len(read_video("outputs/video_autoencoding.mp4", (8, 12))) == 6
    assert len(read_audio("outputs/video_autoencoding.wav", 500)) == 2 * 3 * 20


def test_json_names_the_classes(run_json: RunJson, checkpoints: dict[str, Path], inputs: Path) -> None:
    words = ["video", "--checkpoint", checkpoints["video"], "--video", inputs / "video.mp4", "--output", "here.gif"]
    result = run_json(*words)
    assert result["files"] == ["here.gif", "here.wav"]
    assert result["seconds"] == pytest.approx(0.12)
    assert result["seconds_of_sound"] == pytest.approx(0.12)
    assert [len(clip["classes"]) for clip in result["clips"]] == [5]
    assert len(read_video("here.gif", (8, 12))) == 3


def test_a_silent_video_has_silence(
    checkpoints: dict[str, Path], inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gif(inputs / "silent.gif", np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    words = ["video", "--checkpoint", str(checkpoints["video"]), "--video", str(inputs / "silent.gif")]
    assert main(words) == 0
    assert "0.00 s of sound for 0.12 s of video: the rest is silence" in capsys.readouterr().err
    assert main([*words, "--audio", str(inputs / "sound.wav")]) == 0
    assert "silence" not in capsys.readouterr().err
