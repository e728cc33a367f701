"""The training script of video autoencoding, for a few steps."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import perceiver_io
from examples.tiny import video_autoencoding
from examples.tiny.moving_shapes import MovingShapes
from perceiver_io.media import FRAME_RATE, to_frames, write_mp4
from perceiver_io.processors import read_class_names
from perceiver_io.training.video_autoencoding import VideoAutoencodingObjective


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    module = importlib.import_module("train_video_autoencoding")
    monkeypatch.setattr("tiny.video_autoencoding.NUM_HELD_OUT", 3)
    return module


def run(script: ModuleType, output: Path, *options: str) -> dict[str, object]:
    short = ["--steps", "2", "--batch-size", "2", "--device", "cpu", "--output", str(output)]
    script.main([*options, *short])
    notes: dict[str, object] = json.loads((output / "model" / "training.json").read_text())
    return notes


def make_videos(directory: Path, classes: list[str]) -> None:
    for name in classes:
        (directory / name).mkdir(parents=True)
        for number in range(3):
            frames = to_frames(torch.rand(9, 3, 1, 1).expand(-1, -1, 32, 32))
            sound = None if number == 1 else torch.rand(9 * 1920, 1) - 0.5
            write_mp4(directory / name / f"{number}.mp4", frames, FRAME_RATE, sound)


def test_made_clips(script: ModuleType, tmp_path: Path) -> None:
    notes = run(script, tmp_path, "--tiny")
    model = perceiver_io.load_model(tmp_path / "model")
    assert model.config == video_autoencoding.CONFIG
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 < 2.6e6
    assert read_class_names(tmp_path / "model") == MovingShapes.classes
    assert set(notes["results"]) == {"image_psnr", "audio_psnr", "label_accuracy"}


def test_the_presets_objective_is_the_papers() -> None:
    objective = VideoAutoencodingObjective(config=perceiver_io.create_config("video-autoencoding"))
    assert (objective.image_weight, objective.audio_weight, objective.label_weight) == (0.03, 1.0, 1e-4)
    assert (objective.num_image_points, objective.num_audio_points, objective.label_mask_prob) == (512, 512, 0.5)


def test_video_files_then_fine_tuning(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_videos(tmp_path / "clips", ["singing", "juggling", "rowing"])
    with pytest.warns(UserWarning, match=r"examples could not be used.*1\.mp4 has no sound"):
        run(script, tmp_path / "first", "--tiny", "--data", str(tmp_path / "clips"))
    assert read_class_names(tmp_path / "first" / "model") == ("juggling", "rowing", "singing")
    first = perceiver_io.load_model(tmp_path / "first" / "model")
    assert first.config.num_classes == 3

    options = ["--from", str(tmp_path / "first" / "model"), "--freeze-encoder"]
    make_videos(tmp_path / "fewer", ["humming", "whistling"])
    with pytest.warns(UserWarning, match=r"examples could not be used.*1\.mp4 has no sound"):
        run(script, tmp_path / "second", *options, "--data", str(tmp_path / "fewer"))
    assert read_class_names(tmp_path / "second" / "model") is None
    second = perceiver_io.load_model(tmp_path / "second" / "model")
    assert second.config == first.config
    changed = {
        name.split(".")[0]
        for (name, before), after in zip(first.named_parameters(), second.parameters(), strict=True)
        if not torch.equal(before, after)
    }
    assert changed == {"decoder", "output_postprocessor", "output_query"}

    make_videos(tmp_path / "more", ["a", "b", "c", "d"])
    with pytest.raises(SystemExit):
        run(script, tmp_path / "third", *options, "--data", str(tmp_path / "more"))
    assert "the data have 4 classes and the model 3" in capsys.readouterr().err
