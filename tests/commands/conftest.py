"""Small checkpoints and inputs for the commands, and ways to run them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.media import write_mp4, write_wav
from tests.small_models import SMALL

PRESETS = {"mlm": "language", "classify": "imagenet-fourier", "flow": "optical-flow", "video": "video-autoencoding"}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model for each command, of sizes that differ on every axis."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for command, preset in PRESETS.items():
        bytes_only = {"vocab_size": 262} if command == "mlm" else {}
        perceiver_io.save_model(perceiver_io.create_model(preset, **{**SMALL[preset], **bytes_only}), folder / command)
    return {command: folder / command for command in PRESETS}


@pytest.fixture(autouse=True)
def inputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory to run in, and one beside it with inputs, which the commands reach as `../inputs/…`."""
    folder, here = tmp_path / "inputs", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / "picture.png")
    for number in (1, 2):
        frame = noise.integers(0, 256, (12, 17, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"frame_{number}.png")
    write_mp4(folder / "video.mp4", noise.integers(0, 256, (7, 32, 48, 3), dtype=np.uint8), audio=torch.rand(6_000, 1))
    write_wav(folder / "sound.wav", torch.rand(30_000, 2))
    (folder / "text.txt").write_text("Täglich [MASK][MASK]ot", encoding="utf-8")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that succeeds, and returns what it prints on stdout."""

    def run(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def run_json(run: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Runs a command with `--json`, and returns what that holds."""
    return lambda *words: json.loads(run(*words, "--json"))


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that fails with exit code 2, and returns its one line, having checked that nothing is left."""

    def error_of(*words: object) -> str:
        before = _files()
        try:
            code: object = main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code
        assert code == 2
        assert _files() == before
        output = capsys.readouterr()
        assert output.out == ""
        errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "Traceback" not in output.err
        return errors[0]

    return error_of


def _files() -> set[Path]:
    return set(Path.cwd().rglob("*"))
