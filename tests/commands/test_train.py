"""The training command, with a small task."""

import argparse
import dataclasses
import json
import os
import re
import signal
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io import ImageClassificationConfig
from perceiver_io.commands import train
from perceiver_io.commands.cli import main, run_module
from perceiver_io.commands.train import TaskCommand
from perceiver_io.models.config import ModelConfig
from perceiver_io.processors import read_class_names
from perceiver_io.training import Recipe, read_metrics
from perceiver_io.training.tasks import Material, Task, TinyRun
from tests.small_models import SMALL
from tests.training.small_run import Pictures, objective, stopping

DATA = ("--data", "somewhere")
CONFIG = ImageClassificationConfig(**SMALL["imagenet-fourier"])
TINY = Recipe(num_steps=6, batch_size=4, learning_rate=0.01, weight_decay=0.1, lead_steps=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=int, default=11, help="number of classes")


def prepare(arguments: argparse.Namespace, config: ModelConfig) -> Material:
    return Material(
        config=dataclasses.replace(config, num_classes=arguments.classes),
        dataset=Pictures(),
        objective=objective,
        evaluate=lambda model: {"classes": float(model(torch.zeros(1, 3, 19, 25)).shape[1])},
        description="random pictures",
        class_names=[f"kind {number}" for number in range(arguments.classes)],
    )


TASK = Task(
    name="pictures",
    description="Trains on random pictures.",
    presets=["imagenet-fourier"],
    config_class=ImageClassificationConfig,
    fine_tuning_recipe=dataclasses.replace(TINY, num_steps=3),
    data="anything",
    prepare=prepare,
    add_arguments=add_arguments,
    tiny=TinyRun(config=CONFIG, recipe=TINY, prepare=prepare, data="nothing"),
)


def run(output: Path, *options: str) -> None:
    if code := run_module(TaskCommand(TASK), ["--output", str(output), "--device", "cpu", *options], "train"):
        raise SystemExit(code)


def failing_run(output: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(output, *options)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_run_leaves_a_model_with_notes_and_its_loss_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--tiny", "--seed", "5", "--log-every", "1")
    assert capsys.readouterr().out == f"classes: 11\nwrote {tmp_path / 'model'}\n"
    model = perceiver_io.load_model(tmp_path / "model")
    assert model.config == CONFIG
    assert read_class_names(tmp_path / "model") == tuple(f"kind {number}" for number in range(11))
    notes = json.loads((tmp_path / "model" / "training.json").read_text())
    assert notes["command"] == f"train --output {tmp_path} --device cpu --tiny --seed 5 --log-every 1"
    assert notes["seed"] == 5
    assert notes["data"] == "random pictures"
    assert notes["results"] == {"classes": 11.0}
    assert Recipe(**notes["recipe"]) == TINY
    assert notes["versions"].keys() == {"python", "torch", "perceiver_io"}
    assert (tmp_path / "model" / "loss.png").read_bytes().startswith(b"\x89PNG")
    state = torch.load(tmp_path / "run" / "state.pt")["model"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_finished_run_may_be_started_again(tmp_path: Path) -> None:
    run(tmp_path, "--tiny")
    written = json.loads((tmp_path / "model" / "training.json").read_text())
    run(tmp_path, "--tiny")
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == written


def test_options_override_the_recipe(tmp_path: Path) -> None:
    options = ["--steps", "3", "--batch-size", "6", "--accumulation", "2", "--learning-rate", "0.5"]
    options += ["--weight-decay", "0.2", "--optimizer", "adamw", "--gradient-checkpointing"]
    run(tmp_path, "--tiny", *options)
    recipe = Recipe(**json.loads((tmp_path / "model" / "training.json").read_text())["recipe"])
    assert recipe == Recipe(
        num_steps=3, batch_size=6, learning_rate=0.5, weight_decay=0.2, optimizer="adamw", lead_steps=1
    )


def test_fine_tuning_gives_the_model_a_new_head_and_leaves_a_frozen_encoder(tmp_path: Path) -> None:
    run(tmp_path / "first", "--tiny")
    run(tmp_path / "second", "--from", str(tmp_path / "first" / "model"), "--freeze-encoder", "--classes", "14", *DATA)
    first, second = (perceiver_io.load_model(tmp_path / name / "model") for name in ("first", "second"))
    assert second.config == dataclasses.replace(CONFIG, num_classes=14)
    for name, tensor in second.state_dict().items():
        # Keys' biases add the same to all scores of a query: their gradient is 0, and exactly so in the cheaper order.
        is_frozen = name.startswith(("encoder.", "input_preprocessor.")) or name.endswith("attention.key.bias")
        assert torch.equal(tensor, first.state_dict()[name]) == is_frozen, name
    (last,) = [r for r in read_metrics(tmp_path / "second" / "run" / "metrics.jsonl") if r["kind"] == "training"]
    assert last["step"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiny", "--batch-size", "5", "--accumulation", "2"], r"--batch-size 5 must be a multiple of .* \(2\)"),
        (["--tiny", "--device", "cuda:99"], "cannot use device cuda:99: "),
        (["--tiny", "--steps", "0"], r"num_steps \(0\) must be at least 1"),
        (["--tiny", "--learning-rate", "-1"], r"learning_rate \(-1.0\) must be positive"),
        (["--from", "nowhere", *DATA], "there is no directory nowhere"),
        (["--preset", "imagenet-fourier"], "only --tiny has data of its own; name what to learn from with --data PATH"),
        (["--tiny", "--plan", "--cards", "0"], r"the number of cards \(0\) must be at least 1"),
        (["--tiny", "--plan", "--cards", "-2"], r"the number of cards \(-2\) must be at least 1"),
        (["--tiny", "--plan", "--utilisation", "-1"], r"utilisation \(-1.0\) must be more than 0 and at most 1"),
        (["--tiny", "--learning-rate", "1e35"], "at step 3, with examples "),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *options)
    assert stopped.value.code == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert all("step" in line for line in progress)
    assert error.startswith("error: ")
    assert re.search(message, error)


def test_a_model_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    language: dict[str, Any] = SMALL["language"]
    perceiver_io.save_model(perceiver_io.create_model("language", **language), tmp_path / "language")
    error = failing_run(tmp_path, capsys, "--from", str(tmp_path / "language"), *DATA)
    assert "holds a LanguagePerceiver; pictures trains models with a ImageClassificationConfig" in error


def test_nothing_else_in_the_models_directory_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("")
    assert "thesis.tex would be lost" in failing_run(tmp_path, capsys, "--tiny")
    assert not (tmp_path / "run").exists()


def test_a_beginning_has_to_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say what to start with: --preset or --tiny or --from" in failing_run(tmp_path, capsys)
    both = failing_run(tmp_path, capsys, "--preset", "imagenet-fourier", "--from", "mine", *DATA)
    assert "--preset imagenet-fourier and --from mine start with different models; give one of them" in both


def test_a_signal_ends_with_the_way_on_and_code_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def signalled(arguments: argparse.Namespace, config: ModelConfig) -> Material:
        interrupted = stopping(objective, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return dataclasses.replace(prepare(arguments, config), objective=interrupted)

    assert TASK.tiny is not None
    task = dataclasses.replace(TASK, tiny=dataclasses.replace(TASK.tiny, prepare=signalled))
    assert run_module(TaskCommand(task), ["--tiny", "--output", str(tmp_path), "--device", "cpu"], "train") == 130
    last = capsys.readouterr().err.splitlines()[-1]
    state = tmp_path / "run" / "state.pt"
    assert last == f"interrupted; {state} holds step 3 of 6, and the same command goes on from it"
    assert not (tmp_path / "model").exists()
    run(tmp_path, "--tiny")
    run(tmp_path / "unbroken", "--tiny")
    models = [perceiver_io.load_model(folder / "model").state_dict() for folder in (tmp_path, tmp_path / "unbroken")]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_a_model_does_not_replace_the_one_it_is_made_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--tiny")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    error = failing_run(tmp_path, capsys, "--from", str(tmp_path / "model"), *DATA)
    assert f"--output {tmp_path} would replace --from {tmp_path / 'model'}; choose another --output" in error
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("task", ["image_classification", "video_autoencoding"])
def test_results_do_not_become_a_class(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    options = ["--preset", {"image_classification": "imagenet-conv"}.get(task, "video-autoencoding"), "--device", "cpu"]
    for output in (tmp_path / "data", tmp_path / "data" / "out" / "deep"):
        assert main(["train", task, *options, "--data", str(tmp_path / "data"), "--output", str(output)]) == 2
        assert f"--output {output} lies in --data" in capsys.readouterr().err
    assert not list((tmp_path / "data").iterdir())


def test_reading_that_takes_long_is_told_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(arguments: argparse.Namespace, config: ModelConfig) -> Material:
        time.sleep(0.3)
        return prepare(arguments, config)

    monkeypatch.setattr(train, "_LONG", 0.1)
    assert TASK.tiny is not None
    task = dataclasses.replace(TASK, tiny=dataclasses.replace(TASK.tiny, prepare=slow))
    run_module(TaskCommand(task), ["--tiny", "--output", str(tmp_path), "--device", "cpu", *DATA], "train")
    assert capfd.readouterr().err.startswith("reading somewhere …\n6 steps to go\nstep 1 of 6: loss ")


def test_warnings_are_one_line() -> None:
    usual = warnings.formatwarning
    with train._warnings_on_one_line():
        assert warnings.formatwarning("a text", UserWarning, "file.py", 3) == "warning: a text\n"
    assert warnings.formatwarning is usual


def test_all_tasks_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for task in train.TASKS:
        with pytest.raises(SystemExit) as ended:
            main(["train", task, "--help"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"usage: perceiver-io train {task} ")
        assert "--tiny" not in printed
    assert main(["train", "--json", "language", "--preset", "language", "--data", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_a_plan_is_made_in_place_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "out", "--tiny", "--plan", "--cards", "2", "--card", "l40s", "--json")
    result = json.loads(capsys.readouterr().out)
    assert (result["card"], result["num_cards"], result["utilisation"]) == ("l40s", 2, 0.4)
    assert result["plan"]["parameters"] == sum(p.numel() for p in create_small().parameters())
    assert result["table"].startswith("parameters ")
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", "--tiny", "--plan")
    assert "examples on h100, a tenth of whose memory is left free" in capsys.readouterr().out


def create_small() -> torch.nn.Module:
    return perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])


def test_figures_also_go_to_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    run_there = SimpleNamespace(
        log=lambda figures, step: calls.append(("log", step)),
        finish=lambda exit_code: calls.append(("finish", (exit_code, (tmp_path / "model").is_dir()))),
    )
    begun: list[dict[str, Any]] = []
    stand_in = SimpleNamespace(init=lambda **settings: (begun.append(settings), run_there)[1])
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run(tmp_path, "--tiny", "--steps", "2", "--log-every", "1", "--wandb", "perceivers")
    assert calls == [("log", 1), ("log", 2), ("log", 2), ("finish", (0, True))]
    assert (begun[0]["project"], begun[0]["name"]) == ("perceivers", str(tmp_path))
    assert {"command", "data", "num_steps", "learning_rate"} <= begun[0]["config"].keys()
