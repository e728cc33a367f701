"""Recordings of a model's calls: when one is made, kept, dropped and left out. On the CPU a stand-in records."""

import copy
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import perceiver_io
from perceiver_io import accelerate, undo_accelerate
from perceiver_io.fast import with_graphs
from perceiver_io.fast.graphs import WithGraphs
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked


class OnTheCpu:
    """Stands in for CUDA graphs: a replay runs again what was recorded, with the same tensors in and out."""

    def __init__(self) -> None:
        self.records = self.replays = 0
        self.order: list[str] = []

    def serves(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def on(self, device: torch.device) -> Any:
        return nullcontext()

    def record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.records += 1
        result = run()

        def replay() -> None:
            self.replays += 1
            for kept, new in zip(tree_leaves(result), tree_leaves(run()), strict=True):
                kept.copy_(new)
            self.order.append("replayed")

        return replay, result

    def wait_for_last(self) -> None:
        self.order.append("waited")

    def mark_last(self) -> None:
        self.order.append("marked")


def graphed(name: str = "imagenet-fourier", **options: Any) -> tuple[Any, WithGraphs[Any], OnTheCpu]:
    model = randomised(perceiver_io.create_model(name, **SMALL[name])).eval()
    recorder = OnTheCpu()
    return model, with_graphs(model, recorder=recorder, **options), recorder


def assert_same(actual: Any, expected: Any) -> None:
    for ours, theirs in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_each_shape_is_recorded_once_and_replayed(name: str, mode: Callable[[], Any]) -> None:
    model, run, recorder = graphed(name)
    with mode():
        for times, batch in enumerate((1, 3, 1, 3), 1):
            inputs = small_inputs(model, batch)
            assert_same(run(*inputs), model(*inputs))
            assert recorder.records == min(times, 2)
            assert recorder.replays == times
    assert recorder.order == ["waited", "replayed", "marked"] * 4


def test_results_are_not_overwritten() -> None:
    model, run, _ = graphed()
    first, second = small_inputs(model)[0], small_inputs(model)[0]
    with torch.no_grad():
        result = run(first)
        expected = result.clone()
        run(second)
    assert torch.equal(result, expected)


def test_further_shapes_run_eagerly() -> None:
    model, run, recorder = graphed(max_shapes=2)
    with torch.no_grad():
        for batch in (1, 2, 3, 4, 1):
            inputs = small_inputs(model, batch)
            assert_same(run(*inputs), model(*inputs))
    assert (recorder.records, recorder.replays, run.num_recordings) == (2, 3, 2)
    run.forget()
    assert run.num_recordings == 0


def test_zero_turns_graphs_off() -> None:
    model, run, recorder = graphed(max_shapes=0)
    with torch.no_grad():
        run(*small_inputs(model))
    assert recorder.records == 0
    with pytest.raises(ValueError, match=r"max_shapes \(-1\) must be at least 0; 0 turns graphs off"):
        with_graphs(model, max_shapes=-1)


def _write(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)


def _load(model: nn.Module) -> None:
    model.load_state_dict({key: 1.1 * value for key, value in model.state_dict().items()}, assign=True)


def _data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = 1.1 * parameter.data


def _layer(model: nn.Module) -> None:
    model.decoder.output = randomised(copy.deepcopy(model.decoder.output))


def _hook(model: nn.Module) -> None:
    model.encoder.register_forward_hook(lambda module, args, output: 1.2 * output)


@pytest.mark.parametrize(
    ("change", "records"), [(_write, 1), (_load, 2), (_data, 2), (_layer, 2), (undo_accelerate, 2), (_hook, 1)]
)
def test_changes_of_the_model_are_seen(change: Callable[[nn.Module], Any], records: int) -> None:
    model, run, recorder = graphed()
    inputs = small_inputs(model)
    with torch.no_grad():
        before = run(*inputs)
        change(model)
        after = run(*inputs)
        assert_same(after, model(*inputs))
    assert change is undo_accelerate or not torch.equal(before, after)
    assert recorder.records == records


def test_another_precision_is_recorded_anew() -> None:
    model, run, _ = graphed()
    (images,) = small_inputs(model)
    with torch.no_grad():
        run(images)
        accelerate(model, dtype=torch.float64)
        assert_same(run(images.double()), model(images.double()))
        assert run.num_recordings == 1


def test_what_cannot_be_recorded_runs_eagerly() -> None:
    model, run, recorder = graphed()
    inputs = small_inputs(model)
    assert run(*inputs).requires_grad
    model.train()
    with torch.no_grad():
        run(*inputs)
        model.eval()
        with unchecked(), pytest.raises(ValueError, match="images"):  # as the model itself says it
            run(inputs[0].long())
        meta = model.to("meta")(inputs[0].to("meta"))
        assert run(inputs[0].to("meta")).shape == meta.shape
    assert recorder.replays == 0


def test_a_failing_recording_leaves_the_model_as_it_is() -> None:
    model, run, recorder = graphed()

    def refuse(run: Callable[[], Any]) -> Any:
        recorder.records += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    recorder.record = refuse  # type: ignore[method-assign]
    inputs = small_inputs(model)
    with torch.no_grad():
        for _ in range(2):
            assert_same(run(*inputs), model(*inputs))
    assert recorder.records == 1


def test_threads_take_turns() -> None:
    model, run, recorder = graphed()
    inputs = [torch.randn(1 + number % 2, 3, 19, 25) for number in range(6)]
    results: dict[int, Tensor] = {}

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                results[number] = run(inputs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        for number, result in results.items():
            assert_same(result, model(inputs[number]))
    assert recorder.records == 2
    assert recorder.order == ["waited", "replayed", "marked"] * 30


def test_other_devices_run_eagerly_by_default() -> None:
    model = randomised(perceiver_io.create_model("language", **SMALL["language"])).eval()
    run = with_graphs(model)
    inputs = small_inputs(model)
    with torch.no_grad():
        assert torch.equal(run(*inputs), model(*inputs))
    assert run.num_recordings == 0
