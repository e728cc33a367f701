"""The script that trains language models, for a few steps: on a corpus, on files, and from a model."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import perceiver_io
from benchmarks import masked_words
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
    prose = Prose([TEXT, TEXT[::-1]], [TEXT, TEXT.upper()])
    monkeypatch.setattr("tiny.prose_corpora.python_prose", lambda: prose)
    model, notes = run(script, tmp_path / "run", "--tiny")
    assert model.config == language.CONFIG
    assert notes["data"] == (
        f"prose that ships with Python, SHA-256 {prose.digest}; other documents are for validation "
        "(18,002 and 9,000 bytes)"
    )
    assert notes["results"].keys() == {"accuracy", "baseline_accuracy", "loss"}
    # It began with positions as waves.
    squares = model.output_query.position_encoding.embeddings[:, :2].square().sum(1)
    torch.testing.assert_close(squares, torch.ones(128), atol=0.1, rtol=0)


def test_the_prose_among_other_texts(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prose = Prose([TEXT, TEXT[::-1]], [TEXT, TEXT.upper()])
    monkeypatch.setattr("tiny.prose_corpora.python_prose", lambda: prose)
    (tmp_path / "more.txt").write_text(TEXT.lower())
    monkeypatch.chdir(tmp_path)
    _, notes = run(script, tmp_path / "run", "--tiny", "--data", "python-prose:0.25", "more.txt:0.75")
    assert notes["data"] == (
        f"python-prose:0.25 more.txt:0.75; python-prose: prose that ships with Python, SHA-256 {prose.digest}; other "
        "documents are for validation; more.txt: the last twentieth is held out (26,552 and 9,450 bytes)"
    )
    assert {"accuracy_python-prose", "accuracy_more.txt"} <= notes["results"].keys()


def test_going_on_with_a_tiny_model(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiny.prose_corpora.python_prose", lambda: Prose([TEXT], [TEXT, TEXT.upper()]))
    before, _ = run(script, tmp_path / "first", "--tiny")
    rate = ["--learning-rate", "1e-9", "--weight-decay", "0"]
    after, notes = run(script, tmp_path / "second", "--tiny", "--from", str(tmp_path / "first" / "model"), *rate)
    assert notes["recipe"]["optimizer"] == "muon"
    for name, tensor in after.state_dict().items():
        torch.testing.assert_close(tensor, before.state_dict()[name], atol=1e-6, rtol=0)


def test_figures_over_several_draws_of_what_is_hidden(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tiny.python_prose.python_prose", lambda: Prose([TEXT], [TEXT.upper(), TEXT.lower()]))
    config = {**SMALL["language"], "vocab_size": 262}
    perceiver_io.save_model(perceiver_io.create_model("language", **config), tmp_path / "small")
    found = []
    for options in (["--draws", "3"], ["--draws", "3"], ["--draws", "2"], ["--validation"]):
        masked_words.main(["--checkpoint", str(tmp_path / "small"), *options])
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] != found[2]
    assert found[0]["standard deviation"]["loss"] > 0
    assert found[3]["draws"] == 8
    assert found[3]["mean"] != found[0]["mean"]
    with pytest.raises(SystemExit):
        masked_words.main(["--draws", "1"])
    assert "--draws (1) must be at least 2" in capsys.readouterr().err


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
    assert line == "error: text.txt: the text has 25 bytes, fewer than a window of 128; give more text"
