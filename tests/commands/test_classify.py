"""`perceiver-io classify`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from perceiver_io.commands.cli import main

Run = Callable[..., str]
RunJson = Callable[..., dict[str, Any]]


def test_a_picture_is_classified(run: Run, checkpoints: dict[str, Path], inputs: Path) -> None:
    picture = inputs / "picture.png"
    printed = run("classify", "--checkpoint", checkpoints["classify"], "--image", picture, "--output", "new/here.png")
    lines = printed.splitlines()
    assert lines[:2] == [f"model: {checkpoints['classify']}", f"{picture}:"]
    assert [line.split()[1] for line in lines[2:7]] == ["class"] * 5
    assert lines[7:] == ["wrote new/here.png"]
    assert [file.name for file in Path("new").iterdir()] == ["here.png"]


def test_several_pictures_are_numbered(run_json: RunJson, checkpoints: dict[str, Path], inputs: Path) -> None:
    pictures = [inputs / "picture.png", inputs / "frame_1.png"]
    result = run_json("classify", "--checkpoint", checkpoints["classify"], "--image", *pictures)
    assert [image["image"] for image in result["images"]] == [str(picture) for picture in pictures]
    assert result["files"] == ["outputs/image_classification_1.png", "outputs/image_classification_2.png"]
    assert all(Path(file).is_file() for file in result["files"])
    shares = [one["probability"] for one in result["images"][1]["classes"]]
    assert shares == sorted(shares, reverse=True)


def test_names_come_with_the_checkpoint(run_json: RunJson, checkpoints: dict[str, Path], inputs: Path) -> None:
    checkpoint = Path(shutil.copytree(checkpoints["classify"], inputs / "named"))
    names = [f"kind {index}" for index in range(11)]
    (checkpoint / "training.json").write_text(json.dumps({"class_names": names}))
    result = run_json("classify", "--checkpoint", checkpoint, "--image", inputs / "picture.png")
    assert {one["name"] for one in result["images"][0]["classes"]} <= set(names)


def test_a_sample_is_classified_by_the_bundled_model(run_json: RunJson, run: Run) -> None:
    result = run_json("classify")
    assert len(result["images"][0]["classes"]) == 5
    assert result["checkpoint"] == "tiny-image-classification"
    assert result["knows"] == "knows handwritten digits, and takes every picture for one"
    assert run("classify").splitlines()[:2] == [
        "model: tiny-image-classification, a small one that knows handwritten digits, and takes every picture for one",
        "  for photographs: perceiver-io download imagenet-conv, then add --checkpoint imagenet-conv",
    ]


def test_a_bad_picture_among_good_ones_is_told_of(
    checkpoints: dict[str, Path], inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (1, 1)).save(inputs / "small.png")
    pictures = [inputs / name for name in ("picture.png", "bad.png", "missing.png", "small.png", "frame_1.png")]
    words = ["classify", "--checkpoint", checkpoints["classify"], "--image", *pictures]
    assert main([*map(str, words), "--json"]) == 2
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert ["classes" in image for image in result["images"]] == [True, False, False, False, True]
    # Charts have the numbers of the pictures.
    assert result["files"] == ["outputs/image_classification_1.png", "outputs/image_classification_5.png"]
    errors = output.err.splitlines()
    assert len(errors) == 3
    for line, path in zip(errors, pictures[1:4], strict=True):
        assert line.startswith("error: ")
        assert str(path) in line
    assert main(list(map(str, words))) == 2
    assert f"{pictures[1]}: not classified" in capsys.readouterr().out


def test_bad_pictures_alone_leave_nothing(
    checkpoints: dict[str, Path], inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", "--checkpoint", checkpoints["classify"], "--image", inputs / "text.txt", inputs / "none.png"]
    assert main(list(map(str, words))) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert not list(Path().iterdir())


def test_numbered_charts_replace_nothing(error_of: Run, checkpoints: dict[str, Path], inputs: Path) -> None:
    (inputs / "dog_1.png").write_bytes(b"a dog")
    pictures = [inputs / "picture.png", inputs / "frame_1.png"]
    words = ["classify", "--checkpoint", checkpoints["classify"], "--image", *pictures, "--output", inputs / "dog.png"]
    assert "dog_1.png is there already" in error_of(*words)
