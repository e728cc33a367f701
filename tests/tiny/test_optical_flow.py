"""The script that trains optical flow models, for a few steps: on made pairs, on folders, and from a model."""

import argparse
import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import perceiver_io
from examples.tiny import optical_flow
from perceiver_io import OpticalFlowPerceiver
from perceiver_io.media import read_flo
from perceiver_io.training import Draw
from tests.small_models import SMALL
from tests.training.test_flow import write_chairs


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    module = importlib.import_module("train_optical_flow")
    monkeypatch.setattr("tiny.optical_flow.NUM_HELD_OUT", 2)
    return module


def run(script: ModuleType, output: Path, *options: str) -> tuple[OpticalFlowPerceiver, dict[str, object]]:
    """The model that a run of two steps leaves, and the notes beside it."""
    script.main([*options, "--steps", "2", "--batch-size", "3", "--device", "cpu", "--output", str(output)])
    model = perceiver_io.load_model(output / "model")
    assert isinstance(model, OpticalFlowPerceiver)
    return model, json.loads((output / "model" / "training.json").read_text(encoding="utf-8"))


def small_model(directory: Path) -> Path:
    perceiver_io.save_model(perceiver_io.create_model("optical-flow", **SMALL["optical-flow"]), directory)
    return directory


def test_the_tiny_model_is_tiny(script: ModuleType) -> None:
    model = perceiver_io.create_model("optical-flow", **optical_flow.CONFIG.to_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) < 800_000


def test_made_pairs(script: ModuleType, tmp_path: Path) -> None:
    model, notes = run(script, tmp_path / "run", "--tiny", "--points", "50")
    assert model.config == optical_flow.CONFIG
    assert str(notes["data"]).endswith("made up (MovingTextures); 2 pairs with other seeds are held out")
    assert notes["results"].keys() == {"end_point_error", "zero_error", "relative_error"}
    # It began near its places: no random start has white patches.
    weight = model.input_preprocessor.featurizer.linear.weight
    assert torch.allclose(weight, weight.T, atol=0.1)


def test_made_pairs_have_no_phases(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(script, tmp_path / "run", "--tiny", "--phase", "kitti")
    assert "--phase kitti is for pairs of --data; made ones are as they are" in capsys.readouterr().err


def test_the_first_steps_are_easy() -> None:
    arguments = argparse.Namespace(data=None, phase="mirrored", points=0)
    dataset = optical_flow.prepare(arguments, optical_flow.CONFIG).dataset
    assert len(dataset) == optical_flow.NUM_MADE
    for step, is_easy in ((optical_flow.LEAD_IN - 1, True), (optical_flow.LEAD_IN, False)):
        flow = dataset[Draw(0, 4, step=step)]["flow"]
        assert torch.equal(flow, flow[:, :1, :1].expand_as(flow)) == is_easy


def test_fine_tuning_on_files_with_a_damaged_one(script: ModuleType, tmp_path: Path) -> None:
    files = [write_chairs(tmp_path / "pairs", number) for number in range(1, 8)]
    files[2].frame2.write_bytes(b"")
    source = small_model(tmp_path / "small")
    options = ["--from", str(source), "--data", str(tmp_path / "pairs"), "--freeze-encoder"]
    with pytest.warns(UserWarning, match=r"1 of 6 examples could not be used, .*00003_img2\.ppm is not a picture"):
        model, notes = run(script, tmp_path / "run", *options)
    assert notes["data"] == f"6 pairs of {tmp_path / 'pairs'}; 1 are held out"
    motion = read_flo(files[6].flow).norm(dim=0).mean()
    assert notes["results"]["zero_error"] == pytest.approx(motion.item(), rel=1e-5)
    before = perceiver_io.load_model(source).state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed
    assert all(name.startswith("decoder.") for name in changed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no folder .*pairs; it must hold pairs of frames"),
        (lambda folder: folder.mkdir(), r"has no pairs of frames; name them as Sintel"),
        (lambda folder: write_chairs(folder).frame2.unlink(), r"00001_flow\.flo has no frame .*00001_img2\.png"),
        (lambda folder: write_chairs(folder), "at least two pairs of frames, one of them to be held out; found 1"),
        (
            lambda folder: [write_chairs(folder, number) for number in (1, 2)],
            r"none of 1 examples can be used.*00001_img1\.ppm has 20×30 pixels; pairs must have at least 64×96",
        ),
    ],
)
def test_data_that_cannot_be_used(
    make, message: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "pairs")
    with pytest.raises(SystemExit) as ended:
        run(script, tmp_path / "run", "--tiny", "--data", str(tmp_path / "pairs"))
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert re.search(message, line)
