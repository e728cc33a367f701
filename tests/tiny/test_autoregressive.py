"""The small model that continues text: its training for a few steps, and the one that comes along."""

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

import perceiver_io
from examples.tiny import autoregressive
from examples.tiny.python_prose import Prose
from perceiver_io import PerceiverAR
from perceiver_io.autoregressive import evaluate
from perceiver_io.processors import ByteSequences
from perceiver_io.weights.locations import bundled_model

TEXT = "The quick brown fox jumps over the lazy dog. " * 200


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    return importlib.import_module("train_autoregressive")


def test_the_prose_that_ships_with_python(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prose = Prose([TEXT, TEXT[::-1]], [TEXT.upper()[:900]])
    monkeypatch.setattr("tiny.prose_corpora.python_prose", lambda: prose)
    output = tmp_path / "run"
    script.main(["--tiny", "--steps", "2", "--batch-size", "2", "--device", "cpu", "--output", str(output)])
    model = perceiver_io.load_model(output / "model")
    assert isinstance(model, PerceiverAR) and model.config == autoregressive.CONFIG
    notes = json.loads((output / "model" / "training.json").read_text(encoding="utf-8"))
    assert notes["data"] == (
        f"prose that ships with Python, SHA-256 {prose.digest}; other documents are held out (18,000 and 900 bytes)"
    )
    assert notes["results"].keys() == {"bits_per_token", "loss", "accuracy"}


def test_a_file(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    output = tmp_path / "run"
    words = ["--tiny", "--data", str(tmp_path / "text.txt"), "--steps", "1", "--batch-size", "1", "--device", "cpu"]
    script.main([*words, "--output", str(output)])
    notes = json.loads((output / "model" / "training.json").read_text(encoding="utf-8"))
    assert notes["data"] == f"{tmp_path / 'text.txt'}; the last twentieth is held out (8,550 and 450 bytes)"


def test_the_model_that_comes_along() -> None:
    directory = bundled_model("tiny-autoregressive")
    assert directory is not None
    assert (directory / "model.safetensors").stat().st_size < 6_000_000
    model = perceiver_io.load_model(directory, dtype=torch.float32)
    assert model.config == autoregressive.CONFIG
    text = "Return the name of the file. If the file does not exist, an exception is raised."
    result = evaluate(model, [ByteSequences().encode(text, ends=True)])
    assert result.bits_per_token < 0.3 * math.log2(259)
    run = model.generate([ByteSequences().encode("Return the name of the ")], temperature=0, max_new_tokens=20)
    list(run)
    assert ByteSequences().decode(run.sequences[0]).startswith("Return the name of the string")
