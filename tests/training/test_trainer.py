"""The trainer in one process: resuming, accumulation, precision, and what it refuses."""

import dataclasses
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from perceiver_io.training import Draw, Trainer, TrainerConfig, metrics_log, pace, progress, read_metrics, trainer
from perceiver_io.training.finiteness import Finiteness
from perceiver_io.training.run_directory import occupied
from perceiver_io.training.step_cost import first_examples, step_cost
from tests.training.file_operations import after_operation, dies_after
from tests.training.small_run import (
    NUM_STEPS,
    Interrupted,
    Pictures,
    Scores,
    interrupt,
    kill_this_process,
    losses,
    make_trainer,
    noisy_objective,
    objective,
    stopping,
)
from tests.unchecked import unchecked


def noisy_run(directory: Path, kill_at: int = 0) -> None:
    run = stopping(noisy_objective, kill_at, kill_this_process) if kill_at else noisy_objective
    make_trainer(directory, objective=run, dropout=0.3).fit()


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    kill_at = random.SystemRandom().randint(1, NUM_STEPS)
    process = multiprocessing.get_context("spawn").Process(target=noisy_run, args=(tmp_path / "killed", kill_at))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert len(losses(tmp_path / "killed")) == kill_at - 1, kill_at
    noisy_run(tmp_path / "killed")
    noisy_run(tmp_path / "unbroken")
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken"), kill_at
    assert len(set(losses(tmp_path / "unbroken"))) == NUM_STEPS


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_trains_and_resumes(precision: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": precision, "num_steps": 20}
    with pytest.raises(Interrupted):
        make_trainer(tmp_path / "a", objective=stopping(objective, 16, interrupt), **settings).fit()
    make_trainer(tmp_path / "a", **settings).fit()
    make_trainer(tmp_path / "b", **settings).fit()
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert sum(losses(tmp_path / "a")[-5:]) < sum(losses(tmp_path / "a")[:5])


def test_the_scale_of_float16_is_resumed(tmp_path: Path) -> None:
    def overflowing(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": objective(model, batch, generator)["loss"] * 1e35}

    first = make_trainer(tmp_path, objective=overflowing, precision="float16", num_steps=3)
    before = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    first.fit()
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.model.state_dict().items())
    second = make_trainer(tmp_path, precision="float16", num_steps=3)
    second.fit()
    assert second._scaler.get_scale() == first._scaler.get_scale() == 2.0**13


def test_accumulation_equals_a_bigger_batch(tmp_path: Path) -> None:
    make_trainer(tmp_path / "whole", batch_size=6).fit()
    make_trainer(tmp_path / "parts", batch_size=2, accumulation=3).fit()
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_workers_change_nothing(tmp_path: Path) -> None:
    make_trainer(tmp_path / "here", num_steps=3).fit()
    make_trainer(tmp_path / "workers", num_steps=3, num_workers=2).fit()
    assert losses(tmp_path / "workers") == losses(tmp_path / "here")


def test_it_logs_evaluates_and_saves_when_due(tmp_path: Path) -> None:
    modes = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        modes.append((model.training, torch.is_grad_enabled()))
        return {"score": float(len(modes))}

    def check_mode(model: nn.Module, *arguments: Any) -> dict[str, Tensor]:
        assert model.training
        return objective(model, *arguments)

    final = make_trainer(tmp_path, objective=check_mode, evaluate=evaluate, log_every=4, evaluate_every=3).fit()
    assert final == {"score": 3.0}
    assert modes == [(False, False)] * 3
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["kind"]) for r in records] == [
        (3, "evaluation"),
        (4, "training"),
        (6, "evaluation"),
        (8, "training"),
        (9, "training"),
        (9, "evaluation"),
    ]
    pace = {"examples_per_second", "data_wait"}
    figures = {"loss", "accuracy", "gradient_norm", "learning_rate", *pace}
    assert records[1].keys() == {"step", "kind", "seconds", *figures}
    assert 0 < records[1]["data_wait"] < 1
    assert records[3]["learning_rate"] == pytest.approx(0.02 * make_trainer(tmp_path).schedule(7))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert torch.load(tmp_path / "state.pt")["step"] == NUM_STEPS


def test_a_finished_run_is_only_evaluated(tmp_path: Path) -> None:
    make_trainer(tmp_path, evaluate=lambda model: {"score": 6.0}).fit()
    written = (tmp_path / "metrics.jsonl").read_bytes()
    again = make_trainer(tmp_path, objective=stopping(objective, 1, interrupt), evaluate=lambda model: {"score": 7.0})
    assert again.fit() == {"score": 7.0}
    assert (tmp_path / "metrics.jsonl").read_bytes() == written


def test_without_an_evaluation_the_last_step_is_the_result(tmp_path: Path) -> None:
    assert make_trainer(tmp_path).fit()["loss"] == losses(tmp_path)[-1]


def test_what_is_frozen_stays_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, dropout=0.5)
    classifier = trainer.model.classifier
    classifier.encoder.requires_grad_(False)
    seen = []

    def check_mode(model: nn.Module, *arguments: Any) -> dict[str, Tensor]:
        seen.append((classifier.encoder.training, classifier.encoder.cross_attend.training, classifier.training))
        return objective(model, *arguments)

    frozen = Trainer(
        trainer.model,
        check_mode,
        Pictures(),
        TrainerConfig(num_steps=2, batch_size=3),
        tmp_path,
        make_optimizer=lambda model: torch.optim.AdamW(p for p in model.parameters() if p.requires_grad),
        schedule=lambda step: 1.0,
    )
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    frozen.fit()
    assert seen == [(False, False, True)] * 2
    without_gradient = "decoder.cross_attend.attention.key.bias"  # of one head: it adds the same to all its scores
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name.startswith("encoder.") or name == without_gradient), name


class OneBad(Pictures):
    """One of the pictures holds no numbers."""

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        example = super().__getitem__(draw)
        return {**example, "image": example["image"] / 0} if draw.index == 5 else example


def test_a_loss_that_is_not_finite_names_the_step_and_the_examples(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, dataset=OneBad(), batch_size=2, accumulation=2)
    sampler = run._sampler(0)
    step, bad = next(
        (step, [draw.index for draw in sampler.draws(step, micro)])
        for step in range(NUM_STEPS)
        for micro in range(2)
        if 5 in [draw.index for draw in sampler.draws(step, micro)]
    )
    with pytest.raises(
        FloatingPointError,
        match=f"the loss is nan at step {step + 1}, with examples {bad[0]}, {bad[1]}; look at these, or lower the",
    ):
        run.fit()


def test_on_gpus_it_is_found_some_steps_later_but_before_it_is_saved(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, dataset=OneBad(), batch_size=2, log_every=100, checkpoint_every=NUM_STEPS)
    run._finiteness = Finiteness(most_steps=1000)
    sampler = run._sampler(0)
    step = next(step for step in range(NUM_STEPS) if 5 in [draw.index for draw in sampler.draws(step, 0)])
    assert step + 1 < NUM_STEPS
    with pytest.raises(FloatingPointError, match=f"the loss is nan at step {step + 1}, with examples"):
        run.fit()
    assert not (tmp_path / trainer.STATE_FILE).exists()


def test_a_gradient_that_is_not_finite_is_reported_before_it_is_applied(tmp_path: Path) -> None:
    def steep(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (model(batch["image"]) * 0).sum().abs().sqrt()}

    run = make_trainer(tmp_path, objective=steep, batch_size=3)
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is nan at step 1, with examples (\d+, ){2}\d+;"):
        run.fit()
    assert all(tensor.isfinite().all() for tensor in run.model.state_dict().values())


def averaged_by_hand(directory: Path, decay: float) -> dict[str, Tensor]:
    """The average of the weights that a run logs after each step, in double precision."""
    states: list[dict[str, Tensor]] = []
    run = make_trainer(directory)
    states.append({name: t.double().clone() for name, t in run.model.state_dict().items() if t.is_floating_point()})
    update = run._update

    def updated(*arguments: Any) -> dict[str, Tensor]:
        figures = update(*arguments)
        states.append({name: run.model.state_dict()[name].double().clone() for name in states[0]})
        return figures

    run._update = updated  # type: ignore[method-assign]
    run.fit()
    average = states[0]
    for step, state in enumerate(states[1:]):
        kept = min(decay, (1 + step) / (10 + step))
        average = {name: kept * average[name] + (1 - kept) * state[name] for name in state}
    return average


def test_an_average_of_the_weights_is_evaluated_kept_and_resumed(tmp_path: Path) -> None:
    expected = averaged_by_hand(tmp_path / "plain", 0.3)
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"score": 1.0}

    settings: dict[str, Any] = {"average_decay": 0.3, "evaluate": evaluate}
    with pytest.raises(Interrupted):
        make_trainer(tmp_path / "run", objective=stopping(objective, 6, interrupt), **settings).fit()
    resumed = make_trainer(tmp_path / "run", **settings)
    resumed.fit()
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "training"]
    # The average does not touch the training.
    assert [record["loss"] for record in records] == losses(tmp_path / "plain")
    for name, tensor in expected.items():
        torch.testing.assert_close(resumed.full_state_dict()[name].double(), tensor, atol=1e-6, rtol=1e-5)
        assert torch.equal(seen[-1][name], resumed.full_state_dict()[name])
    again = make_trainer(tmp_path / "run", average_decay=0.3)
    again.fit()
    assert all(torch.equal(again.full_state_dict()[name], seen[-1][name]) for name in expected)
    with pytest.raises(ValueError, match=r"its average's decay is 0\.3, not None"):
        make_trainer(tmp_path / "run").fit()


def test_the_log_says_how_much_of_the_device_is_used(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, num_steps=2, peak_flops=1e12)
    expected = step_cost(run.model, objective, first_examples(Pictures(), 2)).flops / 2
    run.fit()
    for record in read_metrics(tmp_path / "metrics.jsonl"):
        per_example = record["utilisation"] * 1e12 / record["examples_per_second"]
        assert per_example == pytest.approx(expected, rel=0.01)


class SlowDevice:
    """A device that computes while the host, which takes no time itself, goes on, and the clock of both."""

    def __init__(self) -> None:
        self.now = self.is_done_at = 100.0

    def perf_counter(self) -> float:
        return self.now

    def compute(self, seconds: float) -> None:
        self.is_done_at = max(self.now, self.is_done_at) + seconds

    def wait_for(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def waits(*args: Any, **kwargs: Any) -> Any:
            self.now = max(self.now, self.is_done_at)
            return function(*args, **kwargs)

        return waits


@pytest.mark.parametrize("log_every", [1, 7, 10, 25])
def test_the_pace_is_the_devices(log_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SlowDevice()

    def evaluate(model: nn.Module) -> dict[str, float]:
        device.now += 500
        return {"score": 1.0}

    settings = {"num_steps": 50, "checkpoint_every": 6, "evaluate_every": 17, "peak_flops": 1e6}
    run = make_trainer(tmp_path, model=Scores(), log_every=log_every, evaluate=evaluate, **settings)
    run._finiteness = Finiteness(most_steps=10)
    update, save = run._update, run._save

    def updated(*arguments: Any) -> dict[str, Tensor]:
        device.compute(3.0)
        figures = update(*arguments)
        device.compute(1.0)  # the optimiser, after the gradients that are looked at
        return figures

    def saved(step: int) -> None:
        device.now += 70
        save(step)

    monkeypatch.setattr(pace, "time", device)
    monkeypatch.setattr(run, "_update", updated)
    monkeypatch.setattr(run, "_save", saved)
    monkeypatch.setattr(run._finiteness, "look", device.wait_for(run._finiteness.look))
    monkeypatch.setattr(trainer, "mean_over_processes", device.wait_for(trainer.mean_over_processes))
    run.fit()
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "training"]
    assert len(records) == -(-50 // log_every)
    assert [r["examples_per_second"] for r in records] == pytest.approx([4 / 4.0] * len(records))
    work = step_cost(run.model, objective, first_examples(Pictures(), 2)).flops / 2
    assert [r["utilisation"] for r in records] == pytest.approx([work / 1e6] * len(records))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # which it hides
def test_a_compiled_model_learns_the_same(tmp_path: Path) -> None:
    make_trainer(tmp_path / "plain", num_steps=3).fit()
    compiled = make_trainer(tmp_path / "compiled", num_steps=3, compiled=True)
    with unchecked():  # the check of annotations cannot be compiled
        compiled.fit()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert compiled.full_state_dict().keys() == make_trainer(tmp_path / "other").full_state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 10}, "its number of steps is 9, not 10"),
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"batch_size": 5}, "its batch size, times accumulation and processes is 4, not 5"),
        ({"precision": "bfloat16"}, "its precision is 'float32', not 'bfloat16'"),
        ({"rate": 0.03}, "its peak learning rates is"),
    ],
)
def test_the_state_of_another_run_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    with pytest.raises(ValueError, match=f"state.pt is of another run: {message}.*; ask for the same again"):
        make_trainer(tmp_path, **change).fit()


def test_the_state_before_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    noisy_run(tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        make_trainer(tmp_path / "a", objective=stopping(noisy_objective, 8, interrupt), dropout=0.3).fit()
    state = tmp_path / "a" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged .*; the run goes on from the state before it, of step 4"):
        noisy_run(tmp_path / "a")
    assert losses(tmp_path / "a") == losses(tmp_path / "unbroken")


def test_a_state_is_saved_before_an_evaluation_which_is_made_up_for(tmp_path: Path) -> None:
    outcomes = iter([None, 1.0, None, 2.0, None, 3.0])

    def evaluate(model: nn.Module) -> dict[str, float]:
        score = next(outcomes)
        if score is None:
            raise Interrupted
        return {"score": score}

    settings: dict[str, Any] = {"evaluate": evaluate, "evaluate_every": 3, "checkpoint_every": None}
    for step in (3, 6, 9):
        with pytest.raises(Interrupted):
            make_trainer(tmp_path, **settings).fit()
        assert torch.load(tmp_path / "state.pt")["step"] == step
    assert make_trainer(tmp_path, **settings).fit() == {"score": 3.0}
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["score"]) for r in records if r["kind"] == "evaluation"] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert len([r for r in records if r["kind"] == "training"]) == NUM_STEPS


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    directory = tmp_path_factory.mktemp("unbroken")
    noisy_run(directory)
    return losses(directory)


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The numbers of a run's operations on files, but of repeated writes to one file only a few."""
    with after_operation(-1, interrupt) as done:
        noisy_run(tmp_path_factory.mktemp("counted"))
    return [number for number, name in enumerate(done, start=1) if name != "write" or number % 20 == 0]


def one_of(operations: list[int], part: int, parts: int) -> int:
    """One of a part of the operations: another one each time, as all of them would take minutes."""
    return random.SystemRandom().choice(operations[part * len(operations) // parts :][: len(operations) // parts])


@pytest.mark.parametrize("part", range(12))
def test_a_run_that_is_killed_after_any_file_operation_goes_on(
    part: int, operations: list[int], tmp_path: Path, unbroken: list[float]
) -> None:
    number = one_of(operations, part, 12)
    assert dies_after(number, lambda: noisy_run(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is missing; the run goes on from the state before it")
        noisy_run(tmp_path)
    assert losses(tmp_path) == unbroken, number
    assert not list(tmp_path.glob(".*")), number
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("part", range(4))
def test_a_run_that_gets_a_signal_after_any_file_operation_goes_on(
    part: int, kind: signal.Signals, operations: list[int], tmp_path: Path, unbroken: list[float]
) -> None:
    number = one_of(operations, part, 4)
    usual = signal.getsignal(signal.SIGTERM)
    # Outside of a run SIGTERM would end this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    said = ""
    try:
        with after_operation(number, lambda: os.kill(os.getpid(), kind)):
            noisy_run(tmp_path)
    except KeyboardInterrupt as interruption:
        said = str(interruption)
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGTERM, usual)
    if said.startswith("interrupted; "):
        step = torch.load(tmp_path / "state.pt")["step"]
        state = tmp_path / "state.pt"
        assert said == f"interrupted; {state} holds step {step} of 9, and the same command goes on from it"
        assert len(losses(tmp_path)) == step
    noisy_run(tmp_path)
    assert losses(tmp_path) == unbroken, number


def test_a_signal_ends_the_run_after_its_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    signalled = stopping(objective, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt, match=r"state.pt holds step 3 of 9, and the same command goes on from it"):
        make_trainer(tmp_path, objective=signalled, checkpoint_every=None).fit()
    assert "interrupted: the step at hand is finished and the state saved" in capfd.readouterr().err
    make_trainer(tmp_path).fit()
    make_trainer(tmp_path / "unbroken").fit()
    assert losses(tmp_path) == losses(tmp_path / "unbroken")


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"interrupted before a state was saved in .*; the same command starts"):
        make_trainer(tmp_path, objective=stopping(objective, 3, twice), checkpoint_every=None).fit()
    assert not (tmp_path / "state.pt").exists()


def test_a_signal_ends_an_evaluation_at_once(tmp_path: Path) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt, match=r"state.pt holds step 9 of 9"):
        make_trainer(tmp_path, evaluate=evaluate).fit()


class Workers(Pictures):
    """Pictures whose loading leaves behind who loads them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        (self.directory / f"worker-{os.getpid()}").touch()
        return super().__getitem__(draw)

    def signal(self) -> None:
        """Sends the signals that a terminal or a queue sends to all processes of a job."""
        numbers = {int(path.name.removeprefix("worker-")) for path in self.directory.glob("worker-*")} - {os.getpid()}
        assert numbers
        # Whoever sends them is not the trainer, whose SIGTERM its workers obey.
        signals = [f"kill -{kind} {number}" for number in numbers for kind in ("INT", "TERM")]
        subprocess.run("; ".join(signals), shell=True, check=True)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers cannot tell who sends a signal")
def test_workers_outlive_signals_to_all_processes(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    signalled = stopping(objective, 3, workers.signal)
    with pytest.raises(KeyboardInterrupt, match="holds step 3 of 9"):
        make_trainer(tmp_path, objective=signalled, dataset=workers, num_workers=2).fit()
    make_trainer(tmp_path, dataset=workers).fit()
    assert len(losses(tmp_path)) == NUM_STEPS


def test_workers_end_with_the_trainer(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        make_trainer(tmp_path, objective=stopping(objective, 3, interrupt), num_workers=2).fit()
    for child in multiprocessing.active_children():
        child.terminate()
        child.join(20)
        assert child.exitcode == 0


def hold(directory: Path, held: Any) -> None:
    with occupied(directory):
        held.set()
        time.sleep(60)


def test_a_second_run_in_a_directory_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, held))
    process.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match=rf"is in use by another run \(process {process.pid} on .*\); wait for it, or"):
        make_trainer(tmp_path).fit()
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    process.kill()
    process.join()
    make_trainer(tmp_path, num_steps=2).fit()
    assert not (tmp_path / "run.lock").exists()


class OtherPictures(Pictures):
    """As many pictures, but others."""

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return super().__getitem__(Draw(draw.index + 1, draw.seed))


def test_other_data_of_the_same_length_are_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    with pytest.raises(ValueError, match="its data are not those that are given now"):
        make_trainer(tmp_path, dataset=OtherPictures()).fit()


def test_other_trained_parameters_are_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    frozen = make_trainer(tmp_path)
    # One that no group of the optimizer tells from others.
    frozen.model.classifier.encoder.latents.requires_grad_(False)
    with pytest.raises(ValueError, match=r"its requires_grad of classifier\.encoder\.latents\..* is True, not False"):
        frozen.fit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_one_error_with_the_logs_name(tmp_path: Path) -> None:
    log = metrics_log.MetricsLog(tmp_path, 0)
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"), log:
        log.write(1, "training", {"loss": 2.5})


def test_tensorboard_sees_the_figures_once(tmp_path: Path) -> None:
    for start in (0, 2):
        with metrics_log.MetricsLog(tmp_path, start) as log:
            for step in range(start + 1, start + 4):
                log.write(step, "training", {"loss": 2.5 * step + start, "rate": 0.5})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert shown.Tags()["scalars"] == ["training/loss", "training/rate"]
    assert [(event.step, event.value) for event in shown.Scalars("training/loss")] == [
        *((1, 2.5), (2, 5)),
        *((3, 9.5), (4, 12), (5, 14.5)),
    ]


def test_a_full_disk_for_tensorboard_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = metrics_log.MetricsLog(tmp_path, 0)
    log._board.close()
    log._board._records._writer = log._board._file = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left on device: '.*tensorboard'"), log:
        log.write(1, "training", {"loss": 2.5})
    assert capfd.readouterr().err == ""


def test_a_damaged_log_is_named_and_the_state_stays(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        make_trainer(tmp_path, objective=stopping(objective, 6, interrupt)).fit()
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b"\0" * 20 + b"\n" + log.read_bytes())
    state = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl is damaged"):
        make_trainer(tmp_path).fit()
    assert (tmp_path / "state.pt").read_bytes() == state


def test_a_run_shows_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    with pytest.raises(Interrupted):
        make_trainer(tmp_path, objective=stopping(objective, 6, interrupt), log_every=2).fit()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "9 steps to go"
    assert [line.partition(":")[0] for line in lines[1:]] == [f"step {step} of 9" for step in (1, 2, 4)]
    assert all(
        re.fullmatch(r"step \d of 9: loss \d+(\.\d+)?, [\d.e-]+ s a step(, waiting for data \d+%)?", line)
        for line in lines[1:]
    )
    make_trainer(tmp_path, log_every=2).fit()
    assert capsys.readouterr().err.startswith("4 of 9 steps are done\nstep 5 of 9: loss ")


def test_processes_that_see_different_states_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "mean_over_processes", lambda values: dict.fromkeys(values, 4.5))
    with pytest.raises(ValueError, match=r"not all processes see the same .*state.pt; use a directory that they share"):
        make_trainer(tmp_path).fit()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, r"num_steps \(0\) must be at least 1"),
        ({"checkpoint_every": 0}, r"checkpoint_every \(0\) must be at least 1"),
        ({"precision": "int8"}, r"precision \('int8'\) must be one of float32, bfloat16, float16"),
        ({"average_decay": 1.0}, r"average_decay \(1.0\) must be 0 or more and less than 1; None keeps none"),
        ({"strategy": "zero"}, r"strategy \('zero'\) must be one of ddp, fsdp"),
        ({"strategy": "fsdp", "precision": "float16"}, "which strategy 'fsdp' shards; use 'bfloat16'"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    settings = dataclasses.asdict(TrainerConfig(num_steps=1, batch_size=1))
    with unchecked(), pytest.raises(ValueError, match=message):
        TrainerConfig(**{**settings, **change})


def test_a_line_that_was_cut_off_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record = {"step": 1, "kind": "training", "seconds": 0.5, "loss": 2.5}
    path.write_text(json.dumps(record) + '\n{"step": 2, "lo')
    assert metrics_log.read_metrics(path) == [record]


@pytest.mark.parametrize("line", [b"{bad}", b"3", b"\xff", b"[]", b'{"step": 1}', b"[" * 100_000, bytes(20)])
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "kind": "training", "seconds": 0.5}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"line 2 of .*metrics\.jsonl is damaged .*; remove the line, or the file"):
        metrics_log.read_metrics(path)
