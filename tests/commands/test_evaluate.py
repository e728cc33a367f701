"""`perceiver-io evaluate`."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.processors import ImageProcessor
from perceiver_io.weights.locations import sample
from tests.randomised import randomised
from tests.small_models import SMALL

Run = Callable[..., str]
ErrorOf = Callable[..., str]

DIGITS = (2, 3, 5, 6, 8, 9)
IMAGENET = ("evaluate", "imagenet", "--checkpoint", "tiny-image-classification")


@pytest.fixture
def digits(inputs: Path) -> Path:
    """Pictures in folders of classes, one of them in the wrong one."""
    for digit in DIGITS:
        (inputs / "digits" / str(digit)).mkdir(parents=True)
        shutil.copy(sample(f"digit_{digit}.png"), inputs / "digits" / str(digit))
    (inputs / "digits" / "9" / "digit_9.png").rename(inputs / "digits" / "8" / "digit_9.png")
    return inputs / "digits"


def test_imagenet_from_end_to_end(run: Run, digits: Path) -> None:
    lines = run(*IMAGENET, "--data", digits, "--batch-size", 4, "--worst", 2).splitlines()
    assert lines[0] == "model: tiny-image-classification"
    published = "imagenet-fourier 79, imagenet-learned 72.7, imagenet-conv 82.1, perceiver-imagenet 78"
    assert lines[1] == f"top1: 83.33 % (paper: {published})"
    assert lines[3] == f"6 samples: 6 pictures of {digits}"
    assert lines[4] == "wrote outputs/evaluate/imagenet/results.json, outputs/evaluate/imagenet/worst.html"
    result = json.loads(Path("outputs/evaluate/imagenet/results.json").read_text())
    assert result["figures"]["top1"] == pytest.approx(100 * 5 / 6)
    assert result["command"].startswith("perceiver-io evaluate imagenet --checkpoint tiny-image-classification --data")
    page = Path("outputs/evaluate/imagenet/worst.html").read_text()
    assert page.count("<section") == 2
    # The picture that lies with the eights.
    assert page.index("digit_9.png") < page.index('id="example-2"')
    # From what is there.
    again = json.loads(run(*IMAGENET, "--data", digits, "--batch-size", 4, "--worst", 2, "--json"))
    assert again["figures"] == result["figures"]


def test_imagenet_by_the_original_perceiver(run: Run, digits: Path) -> None:
    config: dict[str, Any] = {"index_dims": (12, 12), "num_bands": 2, "num_latents": 4, "num_latent_channels": 16}
    config |= {"num_blocks": 1, "num_cross_attends": 1, "num_self_attend_heads": 2, "num_self_attends_per_block": 1}
    model = randomised(perceiver_io.create_model("perceiver-imagenet", num_classes=10, **config))
    perceiver_io.save_model(model, "original", metadata={"class_names": [str(digit) for digit in range(10)]})
    result = json.loads(run("evaluate", "imagenet", "--checkpoint", "original", "--data", digits, "--json"))
    processor = ImageProcessor.for_model(model)
    right = 0
    for file in digits.rglob("*.png"):
        with torch.no_grad():
            right += int(model(processor(file)).argmax()) == int(file.parent.name)
    assert result["figures"]["top1"] == pytest.approx(100 * right / 6, abs=1e-4)


def test_data_that_cannot_be_used(error_of: ErrorOf, digits: Path) -> None:
    def error(*words: object) -> str:
        return error_of(*IMAGENET, *words)

    assert "there is no folder or archive nowhere" in error("--data", "nowhere")
    assert "the following arguments are required: --data" in error()
    assert "--worst (-1) must be at least 0" in error("--data", digits, "--worst", -1)
    assert "batch size (0) must be at least 1" in error("--data", digits, "--batch-size", 0)
    assert "this needs a ImageClassificationPerceiver" in error("--data", digits, "--checkpoint", "tiny-language")
    (digits / "seven").mkdir()
    assert "has 7 folders of classes (2, 3, 5, …) and the model knows 10 classes" in error("--data", digits)


def test_a_damaged_sample_ends_an_evaluation_and_mended_is_other_data(
    run: Run, digits: Path, error_of: ErrorOf, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = digits / "3" / "digit_3.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-50] + bytes(50))
    words: list[Any] = [*IMAGENET, "--data", digits, "--batch-size", 1]
    assert main(list(map(str, words))) == 2
    assert "digit_3.png is not a picture that Pillow can read" in capsys.readouterr().err
    lines = run(*words, "--skip-unreadable", "--output", "skipped").splitlines()
    assert lines[-3].startswith("5 samples")
    assert lines[-2].startswith("left out, since they cannot be read: 1; the first: ")
    damaged.write_bytes(content)
    assert "outcomes of another evaluation: its data's fingerprint is" in error_of(*words)
    assert "6 samples: " in run(*words, "--output", "anew")


def test_a_missing_package_is_named_before_anything_is_done(
    error_of: ErrorOf, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    error = error_of(*IMAGENET, "--data", digits)
    assert "computing the figures needs torchmetrics; install it with: pip install 'perceiver-io-torch[eva" in error


def test_text_from_end_to_end(run: Run, error_of: ErrorOf, inputs: Path) -> None:
    text = "The function returns a list of the names that are defined in this module. " * 8
    (inputs / "essay.txt").write_text(text)
    words = ["evaluate", "text", "--checkpoint", "tiny-language", "--data", inputs / "essay.txt"]
    result = json.loads(run(*words, "--seed", 2, "--json"))
    assert result["figures"]["accuracy"] > 30
    assert 0 < result["figures"]["bits_per_masked_byte"] < 8
    assert result["settings"] == {"masked share of words": 0.15, "seed": 2, "window": 128}
    assert result["data"]["description"] == f"the first 512 of {len(text)} bytes of {inputs / 'essay.txt'}"
    assert "--masked (2.0) must be above 0 and at most 1" in error_of(*words, "--masked", 2)
    assert "its settings is" in error_of(*words, "--seed", 3)
    (inputs / "short.txt").write_text("short")
    assert "the text has 5 bytes, fewer than a window of 128" in error_of(*words[:-1], inputs / "short.txt")


def test_kinetics_from_end_to_end(run: Run, inputs: Path) -> None:
    folder = inputs / "clips"
    folder.mkdir()
    shutil.copy(sample("moving_shape.mp4"), folder / "abc_000000_000010.mp4")
    (folder / "val.csv").write_text("label,youtube_id,time_start,time_end,split\nring,abc,0,10,val\n")
    words = ("evaluate", "kinetics", "--checkpoint", "tiny-video-autoencoding", "--data", folder)
    lines = run(*words).splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == ["image_psnr", "audio_psnr", "top1"]
    assert lines[1].endswith("dB (paper: video-autoencoding 24.37)")
    figures = json.loads(Path("outputs/evaluate/kinetics/results.json").read_text())["figures"]
    assert figures["image_psnr"] > 15
    assert figures["audio_psnr"] > 15


@pytest.mark.slow
def test_processes_of_torchrun_share_an_evaluation(run: Run, digits: Path) -> None:
    alone = json.loads(run(*IMAGENET, "--data", digits, "--batch-size", 1, "--json"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "perceiver_io", *IMAGENET, "--data", str(digits), "--batch-size", "1", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(perceiver_io.__file__).parents[1])}
    process = subprocess.run(
        [*command, *words, "--output", "shared", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert (result["processes"], result["figures"], result["data"]) == (2, alone["figures"], alone["data"])
    assert [len(Path(f"shared/outcomes/{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)] == [4, 4]


@pytest.fixture
def data(inputs: Path) -> Path:
    """Data of each kind with something wrong."""
    folder = inputs / "data"
    (folder / "kitti" / "flow_occ").mkdir(parents=True)
    (folder / "sintel" / "training" / "clean").mkdir(parents=True)
    (folder / "kinetics").mkdir()
    (folder / "RTE").mkdir()
    with tarfile.open(folder / "whole.tar", "w") as archive:
        archive.add(sample("balloon.jpg"), "000000.jpg")
    content = (folder / "whole.tar").read_bytes()
    (folder / "half.tar").write_bytes(content[: len(content) // 2])
    (folder / "kinetics" / "outside.csv").write_text("label,youtube_id,time_start,time_end\nhexagon,abc,0,10\n")
    (folder / "kinetics" / "columns.csv").write_text("class,youtube_id\nring,abc\n")
    (folder / "RTE" / "dev.tsv").write_text('"index"\t"sentence1"\t"sentence2"\t"label"\n"0"\t"a"\t"b"\t"entailment"\n')
    config = {**SMALL["language"], "vocab_size": 262, "num_decoder_heads": 1}
    classifier = perceiver_io.TextClassificationPerceiver(perceiver_io.TextClassificationConfig(**config))
    perceiver_io.save_model(classifier, folder / "classifier")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "imagenet --checkpoint tiny-image-classification --data {}/half.tar",
            "half.tar is not a whole, uncompressed tar",
        ),
        ("imagenet --checkpoint tiny-image-classification --data {}/whole.tar", "pictures without their classes"),
        ("sintel --checkpoint tiny-optical-flow --data {}/nowhere", "there is no folder "),
        ("sintel --checkpoint tiny-optical-flow --data {}/sintel", "has no pairs of frames; name them as Sintel"),
        ("kitti --checkpoint tiny-optical-flow --data {}/kitti", "is not laid out as KITTI is"),
        (
            "kinetics --checkpoint tiny-video-autoencoding --data {0}/kinetics --labels {0}/kinetics/outside.csv",
            "line 2 of .*outside.csv has the label 'hexagon', which is none of the model's 8 classes",
        ),
        (
            "kinetics --checkpoint tiny-video-autoencoding --data {0}/kinetics --labels {0}/kinetics/columns.csv",
            "columns.csv has the columns class, youtube_id; it must have label, and youtube_id, time_start",
        ),
        ("glue RTE --checkpoint {0}/classifier --data {0}", "was written with quotation marks around its fields"),
        ("glue CoLA --checkpoint {0}/classifier --data {0}", r"there is no .*CoLA/dev\.tsv; give GLUE's folder"),
        ("glue WNLI --checkpoint {0}/classifier --data {0}", "invalid choice: 'WNLI'"),
        ("glue RTE --data {0}", "the following arguments are required: --checkpoint"),
        ("text --checkpoint tiny-language --data {0}/sintel", "has no text files"),
    ],
)
def test_bad_data_are_told_of_in_one_sentence(words: str, message: str, error_of: ErrorOf, data: Path) -> None:
    assert re.search(message, error_of("evaluate", *words.format(data).split()))
