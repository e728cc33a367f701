"""The script that trains language models, for a few steps: on a corpus, on files, and from a model."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import perceiver_io
from examples.tiny import language
from examples.tiny.python_prose import Prose
from perceiver_io import LanguagePerceiver
from tests.small_models import SMALL

TEXT = "The quick brown fox jumps over the lazy dog. " * 200


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    return importlib.import_module("train_language")


def run(script: ModuleType, output: Path, *options: str) -> tuple[LanguagePerceiver, dict[str, object]]:
    """The model that a run of two steps leaves, and the notes beside it."""
    script.main([*options, "--steps", "2", "--batch-size", "3", "--device", "cpu", "--output", str(output)])
    model = perceiver_io.load_model(output / "model")
    assert isinstance(model, LanguagePerceiver)
    return model, json.loads((output / "model" / "training.json").read_text(encoding="utf-8"))


def test_the_tiny_model_is_tiny(script: ModuleType) -> None:
    model = perceiver_io.create_model("language", **language.CONFIG.to_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000


def test_the_prose_that_ships_with_python(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prose = Prose([TEXT, TEXT[::-1]], [TEXT.upper()])
    monkeypatch.setattr("tiny.language.python_prose", lambda: prose)
    model, notes = run(script, tmp_path / "run", "--tiny")
    assert model.config == language.CONFIG
    assert notes["data"] == (
        f"prose that ships with Python, SHA-256 {prose.digest}; other documents are held out (18,002 and 9,000 bytes)"
    )
    assert notes["results"].keys() == {"accuracy", "baseline_accuracy", "loss"}
    # It began with positions as waves.
    squares = model.output_query.position_encoding.embeddings[:, :2].square().sum(1)
    torch.testing.assert_close(squares, torch.ones(128), atol=0.1, rtol=0)


def test_a_file(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    _, notes = run(script, tmp_path / "run", "--tiny", "--data", str(tmp_path / "text.txt"))
    assert notes["data"] == f"{tmp_path / 'text.txt'}; the last twentieth is held out (8,550 and 450 bytes)"
    assert notes["results"]["baseline_accuracy"] > 0.05


def test_fine_tuning_with_a_frozen_encoder(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    config = {**SMALL["language"], "vocab_size": 262}
    perceiver_io.save_model(perceiver_io.create_model("language", **config), tmp_path / "small")
    options = ["--from", str(tmp_path / "small"), "--freeze-encoder", "--data", str(tmp_path / "text.txt")]
    model, _ = run(script, tmp_path / "run", *options)
    before = perceiver_io.load_model(tmp_path / "small").state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(("encoder.", "input_preprocessor.")) for name in changed)


def test_a_text_that_is_too_short(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(TEXT[:500])
    with pytest.raises(SystemExit) as ended:
        script.main(["--tiny", "--data", str(tmp_path / "text.txt"), "--output", str(tmp_path / "run")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: the text has 25 bytes, fewer than a window of 128; give more text"
