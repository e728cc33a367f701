"""Fine-tuning on GLUE: the recipe, the head, the objective, and a run on made sentences."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import perceiver_io
from examples import glue_grid
from examples.tiny import made_sentences
from perceiver_io.commands.cli import main
from perceiver_io.training.data.glue import GLUE_TASKS, read_glue
from perceiver_io.training.fine_tuning import text_classifier
from perceiver_io.training.recipes import GLUE_BATCH_SIZES, GLUE_EPOCHS, GLUE_LEARNING_RATES, GLUE_RECIPE
from perceiver_io.training.tasks.glue import classifier_config
from perceiver_io.training.text_classification import GlueObjective
from tests.small_models import SMALL

SIZES = {**SMALL["language"], "vocab_size": 262, "max_seq_len": 30}


def test_the_papers_recipe() -> None:
    assert (GLUE_EPOCHS, GLUE_BATCH_SIZES, GLUE_LEARNING_RATES) == (10, (16, 32, 64), (1e-4, 5e-5, 2e-5, 1e-5))
    recipe = GLUE_RECIPE.with_epochs(GLUE_EPOCHS, 2490)  # RTE's
    assert (recipe.optimizer, recipe.weight_decay, recipe.lead, recipe.lead_steps) == ("lamb", 0.01, "warmup", 200)
    assert recipe.num_steps == math.ceil(24_900 / 32)
    assert recipe.schedule()(100) == pytest.approx(0.5)
    assert GLUE_RECIPE.with_epochs(1, 64).lead_steps == 2
    with pytest.raises(ValueError, match=r"the number of epochs \(0\) must be above 0"):
        GLUE_RECIPE.with_epochs(0, 64)


def test_a_classifier_starts_from_a_language_models_encoder() -> None:
    language = perceiver_io.create_model("language", **SIZES)
    config = classifier_config(language.config, 3)
    assert (config.num_classes, config.head_channels, config.decoder_query_residual) == (3, 24, False)
    classifier = text_classifier(language, config)
    for name, value in language.state_dict().items():
        if name.startswith(("encoder.", "input_preprocessor.")):
            assert torch.equal(classifier.state_dict()[name], value)
    # From one task to the next all is kept but the last layer.
    other = text_classifier(classifier, classifier_config(config, 2)).state_dict()
    last = "output_postprocessor.output."
    kept = {name: value for name, value in classifier.state_dict().items() if not name.startswith(last)}
    assert all(torch.equal(other[name], value) for name, value in kept.items())
    assert other[f"{last}weight"].shape == (2, 24)


class Answers(nn.Module):
    """Answers with what it was given, whatever it reads; remembers how much that was."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.length = tokens.shape[1]
        return self.logits


def test_the_loss_is_the_cross_entropy_or_the_squared_error_of_a_score() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    batch = {"tokens": torch.ones(2, 5, dtype=torch.int64), "mask": mask, "label": torch.tensor([1.0, 0.0])}
    model = Answers(torch.randn(2, 2))
    objective = GlueObjective(task=GLUE_TASKS["RTE"])
    figures = objective(model, objective.prepare(batch), torch.Generator())
    torch.testing.assert_close(figures["loss"], F.cross_entropy(model.logits, torch.tensor([1, 0])))
    assert model.length == 3
    scores = Answers(torch.tensor([[2.0], [1.5]]))
    figures = GlueObjective(task=GLUE_TASKS["STS-B"])(scores, batch, torch.Generator())
    assert float(figures["loss"]) == pytest.approx((1 + 1.5**2) / 2)


def test_made_sentences_follow_their_rule(tmp_path: Path) -> None:
    made_sentences.write(tmp_path)
    parts = [read_glue(tmp_path / "SST-2" / file, GLUE_TASKS["SST-2"]) for file in ("train.tsv", "dev.tsv")]
    assert [len(part) for part in parts] == [540, 180]
    assert not set(parts[0]) & set(parts[1])
    labels = {text: label for part in parts for (text,), label in part}
    assert labels["the film is splendid"] == labels["there is nothing harsh in the plot"] == 1
    assert labels["the film is not splendid"] == labels["this dull idea stays with you"] == 0


def test_a_run_and_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made_sentences.write(tmp_path / "data")
    dev = Path("data/SST-2/dev.tsv")
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[:20]))
    perceiver_io.save_model(perceiver_io.create_model("language", **SIZES), "language")
    run: Callable[..., int] = lambda *words: main([*words, "--data", "data", "--device", "cpu"])  # noqa: E731
    assert run("train", "glue", "SST-2", "--from", "language", "--epochs", "0.1", "--output", "run") == 0
    notes = json.loads(Path("run/model/training.json").read_text())
    assert notes["recipe"]["num_steps"] == math.ceil(54 / 32)
    assert set(notes["results"]) == {"accuracy", "score"}
    capsys.readouterr()
    assert run("evaluate", "glue", "SST-2", "--checkpoint", "run/model", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"] == "glue-SST-2"
    assert result["settings"]["outputs"] == ["0", "1"]
    assert result["figures"] == pytest.approx(notes["results"])
    assert Path("outputs/evaluate/glue-SST-2/worst.html").exists()


def test_the_grid_names_the_best_of_twelve_runs_and_repeats_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def train(words: list[str]) -> int:
        options = dict(zip(words[-6::2], words[-5::2], strict=True))
        calls.append((words[:5], options["--batch-size"], options["--learning-rate"]))
        if len(calls) == 5:
            return 2
        model = Path(options["--output"]) / "model"
        model.mkdir(parents=True)
        score = 50 + 100_000 * float(options["--learning-rate"]) - float(options["--batch-size"]) / 100
        (model / "training.json").write_text(json.dumps({"results": {"score": score}}))
        return 0

    monkeypatch.setattr(glue_grid.cli, "main", train)
    words = ["CoLA", "--from", "language", "--data", "GLUE", "--output", str(tmp_path)]
    assert glue_grid.main(words) == 2
    assert glue_grid.main(words) == 0
    assert len(calls) == 1 + 12
    assert len({call[1:] for call in calls}) == 12
    assert calls[0][0] == ["train", "glue", "CoLA", "--from", "language"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f" 59.84  {tmp_path / 'CoLA' / '16-0.0001' / 'model'}"
    assert len(lines) == 12
