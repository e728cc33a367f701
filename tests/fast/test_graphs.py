"""Recordings of a model's calls: when one is made, kept, dropped and left out. On the CPU a stand-in records."""

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import perceiver_io
from perceiver_io import accelerate, undo_accelerate
from perceiver_io.fast import graphs, plain, with_graphs
from perceiver_io.fast.graphs import CudaRecorder, Recordings, WithGraphs
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked

pytestmark = pytest.mark.usefixtures("as_on_cuda")


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
            with graphs._recording(torch.device("cpu")):  # as it was
                again = run()
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                kept.copy_(new)
            self.order.append("replayed")

        return replay, result

    def wait_for_last(self) -> None:
        self.order.append("waited")

    def mark_last(self) -> None:
        self.order.append("marked")

    def finish(self) -> None:
        self.order.append("finished")


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


@pytest.mark.parametrize("place", ["encoder.forward", "decode", "linear"])
def test_functions_that_others_replaced_are_called(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, recorder = graphed()
    inputs = small_inputs(model)
    owner: Any = {"encoder.forward": model.encoder, "decode": model, "linear": F}[place]
    function = getattr(owner, name := place.rpartition(".")[2])
    with torch.no_grad():
        before = run(*inputs)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: function(*args, **kwargs).tanh())
        assert not torch.allclose(run(*inputs), before)
    assert recorder.replays == 1


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
        expected = model(*inputs)
        with pytest.warns(UserWarning, match=r"ImageClass.* without a CUDA graph, .*: operation not permitted"):
            assert_same(run(*inputs), expected)
        assert_same(run(*inputs), expected)
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


def self_graphed(name: str = "language") -> tuple[Any, OnTheCpu]:
    """An accelerated model whose own recordings are the stand-in's."""
    model = randomised(perceiver_io.create_model(name, **SMALL[name])).eval()
    recorder = OnTheCpu()
    model._recordings = Recordings(2, recorder)
    return model, recorder


def test_accelerated_models_replay_by_themselves() -> None:
    model, recorder = self_graphed()
    inputs = small_inputs(model)
    assert model(*inputs).requires_grad
    with torch.no_grad():
        expected = undo_accelerate(copy.deepcopy(model))(*inputs)
        for _ in range(2):
            assert_same(model(*inputs), expected)
        assert (recorder.records, recorder.replays, len(model._recordings)) == (1, 2, 1)
        handle = model.register_forward_hook(lambda module, args, output: 2 * output)
        assert_same(model(*inputs), 2 * expected)
        handle.remove()
        with plain(model):
            assert_same(model(*inputs), expected)
        assert recorder.replays == 2
        assert_same(model(*inputs), expected)
        assert (recorder.records, recorder.replays) == (1, 3)
        model.train()
        model(*inputs)
        assert not len(model._recordings)  # their memory is free for training
        undo_accelerate(model.eval())(*inputs)
    assert (recorder.records, recorder.replays) == (1, 3)


def test_an_argument_turns_graphs_off() -> None:
    model, _ = self_graphed()
    assert not hasattr(accelerate(model, max_graphs=0), "_recordings")
    assert accelerate(model, max_graphs=3)._recordings.max_shapes == 3
    with pytest.raises(ValueError, match=r"max_shapes \(-1\) must be at least 0; 0 turns graphs off"):
        accelerate(model, max_graphs=-1)


def test_copies_and_pickles_record_anew() -> None:
    model, recorder = self_graphed()
    inputs = small_inputs(model)
    with torch.no_grad():
        expected = model(*inputs)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert twin._recordings is not model._recordings
            assert (twin._recordings.max_shapes, len(twin._recordings)) == (2, 0)
            assert_same(twin(*inputs), expected)
    assert recorder.replays == 1
    assert model.state_dict().keys() == undo_accelerate(copy.deepcopy(model)).state_dict().keys()


def test_parts_of_what_is_recorded_run_eagerly() -> None:
    model, inner = self_graphed()
    recorder = OnTheCpu()
    run = with_graphs(model, recorder=recorder)
    inputs = small_inputs(model)
    with torch.no_grad():
        run(*inputs)
        assert (recorder.records, inner.records) == (1, 0)
        model(*inputs)
        assert inner.records == 1


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_run_eagerly() -> None:
    model, recorder = self_graphed("imagenet-fourier")
    (images,) = small_inputs(model, 3)
    with torch.no_grad(), unchecked():
        expected = model(images)
        assert_same(torch.vmap(lambda image: model(image[None])[0])(images), expected)
    assert recorder.replays == 1


class Probe(nn.Module):
    """Maps rows to what `forward` makes of them."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.seen: list[bool] = []
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        """Runs it."""
        return self._forward(self, x)


@dataclass
class Wrapped:
    """A result that nobody can look into."""

    value: Tensor


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6 to find out before")
@pytest.mark.parametrize(
    "forward",
    [
        lambda probe, x: x * x.sum().item(),
        lambda probe, x: x[x > 0],
        lambda probe, x: x * torch.tensor(2.0),
        lambda probe, x: Wrapped(probe.layer(x)),
    ],
    ids=["value", "index", "number", "result"],
)
def test_what_a_recording_cannot_stand_for_is_not_tried(forward: Callable[[nn.Module, Tensor], Any]) -> None:
    probe, recorder = Probe(forward).eval(), OnTheCpu()
    run = with_graphs(probe, recorder=recorder)
    with torch.no_grad():
        for _ in range(2):
            run(torch.ones(2, 3))
    assert (recorder.records, recorder.replays) == (0, 0)


def test_unknown_arguments_and_parts_in_training_run_eagerly() -> None:
    probe, recorder = Probe(lambda probe, x: probe.layer(x if isinstance(x, Tensor) else x.value)).eval(), OnTheCpu()
    run = with_graphs(probe, recorder=recorder)
    with torch.no_grad():
        run(Wrapped(torch.ones(2, 3)))
        probe.layer.train()
        run(torch.ones(2, 3))
    assert not recorder.records


def test_recordings_keep_no_weights_cast_by_autocasting() -> None:
    def forward(probe: Any, x: Tensor) -> Tensor:
        probe.seen.append(torch.is_autocast_cache_enabled())
        result: Tensor = probe.layer(x)
        return result

    probe, recorder = Probe(forward).eval(), OnTheCpu()
    run = with_graphs(probe, recorder=recorder)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = run(torch.ones(2, 3))
        assert before.dtype == torch.bfloat16
        assert probe.seen[:2] == [False, False]
        probe.layer.weight.add_(1)
        assert not torch.equal(run(torch.ones(2, 3)), before)
    with torch.no_grad():
        assert run(torch.ones(2, 3)).dtype == torch.float32
    assert recorder.records == 2


def test_either_set_of_switches_of_precision_is_read() -> None:
    model, run, recorder = graphed()
    inputs = small_inputs(model)
    # PyTorch 2.9 and later has two sets, which do not mix.
    name = "fp32_precision" if hasattr(torch.backends.cudnn, "conv") else "allow_tf32"
    products = torch.backends.cuda.matmul
    before = getattr(products, name)
    with torch.no_grad():
        run(*inputs)
        setattr(products, name, "tf32" if name == "fp32_precision" else True)
        try:
            run(*inputs)
        finally:
            setattr(products, name, before)
    assert recorder.records == 2


def test_what_is_compiled_stays_so() -> None:
    compiled: list[Any] = []

    def backend(program: Any, example_inputs: Any) -> Any:
        compiled.append(program)
        return program.forward

    model, recorder = nn.Sequential(nn.Linear(3, 4), Probe(lambda probe, x: x.sin())).eval(), OnTheCpu()
    model[1].compile(backend=backend)
    run = with_graphs(model, recorder=recorder)
    with torch.no_grad():
        for rows in (2, 5):
            assert_same(run(torch.ones(rows, 3)), model(torch.ones(rows, 3)))
    assert len(compiled) == 2  # once more for any number of rows
    assert recorder.records == 2


class FakeCuda:
    """What `CudaRecorder` calls of `torch.cuda`, which notes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.streams = 0
        self.pools: list[int | None] = []
        self.current = self.stream("main")
        cuda = self

        class Graph:
            def __init__(self) -> None:
                self.number = len(cuda.pools)

            def pool(self) -> int:
                return self.number

            def replay(self) -> None:
                cuda.log.append(f"replay {self.number}")

        @contextmanager
        def graph(graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Any:
            cuda.log.append(f"capture on {stream.name}")
            assert capture_error_mode == "thread_local"
            cuda.pools.append(pool)
            cuda.current = stream
            yield  # PyTorch's does not go back to the stream before if the block fails
            cuda.current = cuda.main

        @contextmanager
        def on_stream(stream: Any) -> Any:
            before, cuda.current = cuda.current, stream
            try:
                yield
            finally:
                cuda.current = before

        self.main = self.current
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "stream", on_stream)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.stream(f"side {self.streams}"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "new")
        for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool", "_cuda_releasePool"):
            told = name.removeprefix("_cuda_").removesuffix("Pool")
            monkeypatch.setattr(
                torch._C, name, lambda *pool, told=told: self.log.append(f"{told} {pool}"), raising=False
            )

    def stream(self, name: str) -> Any:
        self.streams += 1
        return SimpleNamespace(
            name=name,
            device=torch.device("cuda:0"),
            wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}"),
        )


def test_cuda_graphs_are_recorded_on_one_stream_in_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, recorder = FakeCuda(monkeypatch), CudaRecorder()
    replay, result = recorder.record(lambda: cuda.log.append(f"run on {cuda.current.name}"))
    assert result is None
    assert cuda.log == [
        "side 1 waits for main",
        "run on side 1",
        "run on side 1",
        "main waits for side 1",
        "capture on side 1",
        "run on side 1",
    ]
    replay()
    assert cuda.log[-1] == "replay 0"
    others = [recorder.record(lambda: None) for _ in range(2)]
    assert "capture on side 1" in cuda.log[-1:]
    assert cuda.pools == ["new", 0, 0] or cuda.pools == ["new", 0, 1]
    del replay, others
    gc.collect()

    def fail() -> None:
        if cuda.pools[3:]:
            raise RuntimeError("not while recording")

    with pytest.raises(RuntimeError):
        recorder.record(fail)
    assert cuda.current is cuda.main
    assert cuda.log[-2:] == ["endAllocateTo (0, 'new')", "release (0, 'new')"]  # or the allocator would go on recording
    recorder.record(lambda: None)
    assert cuda.pools[3:] == ["new", "new"]  # not those that are gone, nor the one that failed
    CudaRecorder().record(lambda: None)
    assert cuda.log[-1] == "capture on side 2"  # libraries' workspaces are a stream's


@pytest.mark.parametrize("name", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool", None])
def test_a_pool_is_left_in_all_versions_of_pytorch(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    for known in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
        monkeypatch.delattr(torch._C, known, raising=False)
    if name is not None:
        monkeypatch.setattr(torch._C, name, lambda *pool: calls.append(pool), raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: calls.append(pool), raising=False)
    graphs._leave_pool(torch.device("cuda:1"), (0, 1))
    assert calls == [(1, (0, 1))] * (0 if name is None else 2)
