"""Where there is a CUDA device: the golden cases, the task models in every precision and a training step run on it."""

import copy
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import perceiver_io
from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.fast import with_graphs
from perceiver_io.training import Lamb, decay_groups
from perceiver_io.weights.haiku_conversion import convert_parameters
from perceiver_io.weights.pystate import HaikuCheckpoint
from tests import compile_models
from tests.autoregressive.small import SIZES
from tests.golden import Case, cases
from tests.parity import test_blocks, test_perceiver_ar
from tests.parity.test_models import check_outputs, preset_of
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs
from tests.training.test_waiting import material

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # PyTorch says once that switches have newer names, of a thread's first product, and what its mode below misses.
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]
# In standard deviations of the output; float32 without TF32. On a CPU, made to take a GPU's ways, bfloat16 lies up to
# 0.023 off, float16 0.0037.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 0.05, torch.float16: 0.02}
# Golden blocks that compute with weights or inputs on the device.
BLOCKS = [path for path in cases("blocks") if not path.stem.startswith(("fourier", "linear_positions", "multimodal"))]
AR_BLOCKS = [
    path
    for path in cases("perceiver_ar/blocks")
    if path.stem.startswith(("attention", "cross_attention", "dense", "rotary", "self_attention"))
    and "memory" not in path.stem
]
AR_MODELS = [path for path in cases("perceiver_ar/models") if path.stem.startswith(("absolute", "generate", "rotary"))]
COMPILED = ("language", "imagenet-fourier", "optical-flow")  # a mask and several heads, and both kinds of a wide head


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    for ours, theirs in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert (ours.cpu().double() - theirs.double()).abs().max() <= tolerance * theirs.double().std()


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", cases("models"), ids=lambda path: path.stem)
def test_golden_models(path: Path, accelerated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.load(path)
    monkeypatch.setattr("tests.golden.TOLERANCE", TOLERANCES[torch.float32])
    preset, overrides = preset_of(case)
    model = perceiver_io.create_model(preset, **overrides).eval()
    if not accelerated:
        perceiver_io.undo_accelerate(model)
    checkpoint = HaikuCheckpoint(params=case.params, state=case.state, sha256="")
    model.load_state_dict(convert_parameters(checkpoint, preset, model.config), strict=True)
    case.inputs = {name: tensor.cuda() for name, tensor in case.inputs.items()}
    check_outputs(case, model.cuda())


@pytest.fixture
def golden_on_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has the modules of golden cases, and what tests make for them, on the device."""
    fill = Case.fill

    def fill_there(case: Case, module: torch.nn.Module, table: Any) -> None:
        fill(case, module, table)
        module.cuda()  # buffers, too, which come from arrays

    monkeypatch.setattr(Case, "fill", fill_there)
    monkeypatch.setattr("tests.golden.TOLERANCE", TOLERANCES[torch.float32])
    with torch.device("cuda"):
        yield


def on_card(case: Case) -> Case:
    return replace(case, inputs={name: tensor.cuda() for name, tensor in case.inputs.items()})


@pytest.mark.usefixtures("golden_on_card")
@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: path.stem)
def test_golden_blocks(path: Path, accelerated: bool) -> None:
    test_blocks.check(on_card(Case.load(path, accelerated)))


@pytest.mark.usefixtures("golden_on_card")
@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", AR_BLOCKS, ids=lambda path: path.stem)
def test_golden_blocks_of_perceiver_ar(path: Path, accelerated: bool) -> None:
    test_perceiver_ar.check_block(on_card(Case.load(path, accelerated)))


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", AR_MODELS, ids=lambda path: path.stem)
def test_golden_perceiver_ar(path: Path, accelerated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.load(path)
    monkeypatch.setattr("tests.golden.TOLERANCE", TOLERANCES[torch.float32])
    monkeypatch.setattr(test_perceiver_ar, "check_final_memories", lambda *_: None)  # compares on the CPU
    model = test_perceiver_ar.model_of(case).cuda()
    test_perceiver_ar.check_model(on_card(case), perceiver_io.accelerate(model) if accelerated else model)


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_task_models(name: str, dtype: torch.dtype, batch: int, graphs: bool) -> None:
    model = randomised(perceiver_io.create_model(name, **SMALL[name]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs = small_inputs(model, batch)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
        run: Any = perceiver_io.accelerate(model, dtype=dtype, max_graphs=8 if graphs else 0).cuda()
        given = [(x.to(dtype) if x.is_floating_point() else x).cuda() for x in inputs]
        for _ in range(2):
            assert_close(run(*given), expected, TOLERANCES[dtype])
    if graphs:
        assert len(run._recordings) == 1


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [2, 32])
@pytest.mark.parametrize("name", SMALL)
def test_a_training_step(name: str, batch: int, precision: torch.dtype | None) -> None:
    model = randomised(perceiver_io.create_model(name, **SMALL[name])).train()
    twin = copy.deepcopy(model).cuda()
    inputs = small_inputs(model, batch)  # of language, with a mask
    sum(output.square().mean() for output in tree_leaves(model(*inputs))).backward()
    with torch.autocast("cuda", precision, enabled=precision is not None):
        loss = sum(output.float().square().mean() for output in tree_leaves(twin(*(x.cuda() for x in inputs))))
    loss.backward()
    torch.optim.AdamW(twin.parameters(), fused=True).step()
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        assert ours.isfinite().all()
        if precision is None and theirs.grad is not None:
            assert (ours.grad.cpu() - theirs.grad).abs().max() <= 1e-3 * theirs.grad.abs().max() + 1e-6


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Within the block, an operation that waits for the device is an error."""
    try:
        torch.cuda.set_sync_debug_mode("error")  # and then warns
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("name", SMALL)
def test_inference_waits_for_nothing(name: str, graphs: bool) -> None:
    model = perceiver_io.create_model(name, **SMALL[name]).eval()
    perceiver_io.accelerate(model, max_graphs=8 if graphs else 0).cuda()
    inputs = [x.cuda() for x in small_inputs(model)]
    with torch.inference_mode():
        model(*inputs)
        with nothing_waits():
            model(*inputs)


@pytest.mark.parametrize("name", [*SMALL, "glue", "autoregressive"])
def test_training_waits_for_nothing(name: str) -> None:
    model, objective, batch = material(name)
    if hasattr(objective, "prepare"):
        batch = objective.prepare(batch)
    model.cuda().train()
    on_card = {key: tensor.cuda() for key, tensor in batch.items()}
    optimizer = Lamb(decay_groups(model, 0.1), lr=1e-3)
    for step in range(2):
        with nothing_waits() if step else nullcontext():
            objective(model, on_card, torch.Generator().manual_seed(0))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()


def test_graphs_see_new_weights_in_threads_and_under_autocast() -> None:
    model = randomised(perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])).eval()
    plain = perceiver_io.undo_accelerate(copy.deepcopy(model)).cuda()
    inputs = [small_inputs(model, 1 + number % 2)[0].cuda() for number in range(4)]
    model.cuda()
    results: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                results[number] = model(inputs[number])
            torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.inference_mode():
        for number, result in results.items():
            assert_close(result, plain(inputs[number]).cpu(), TOLERANCES[torch.float32])
    assert len(model._recordings) == 2
    for either in (model, plain):
        either.load_state_dict({key: 1.1 * value for key, value in either.state_dict().items()}, assign=True)
    with torch.no_grad():
        for _ in range(2):
            assert_close(model(inputs[0]), plain(inputs[0]).cpu(), TOLERANCES[torch.float32])
        with torch.autocast("cuda", torch.bfloat16):
            for _ in range(3):
                assert_close(model(inputs[0]), plain(inputs[0]).cpu(), TOLERANCES[torch.bfloat16])
                torch.randn(1 << 20, device="cuda")  # over what autocasting has cast and freed
    assert len(model._recordings) == 2


def test_what_cannot_be_recorded_leaves_the_card_usable() -> None:
    class Looking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.sum().item()

    run = with_graphs(torch.nn.Sequential(torch.nn.Linear(3, 3), Looking()).cuda().eval())
    with torch.no_grad():
        for _ in range(2):
            run(torch.ones(2, 3, device="cuda"))
    assert run.num_recordings == 0
    assert torch.randn(3, device="cuda").isfinite().all()


def test_programs_compute_the_same() -> None:
    """`torch.compile`, blocks that are compiled and recorded, the operator of attention by products, `torch.export`."""
    root = Path(__file__).parents[1]  # run-time checks of tests cannot be compiled, so in a process of its own
    words = [sys.executable, "-W", "ignore", "-m", "tests.compile_models", "inductor", "cuda", *COMPILED]
    ended = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert ended.stdout.splitlines() == list(compile_models.names("inductor", COMPILED))


def test_steps_of_generation_are_graphs() -> None:
    model = randomised(PerceiverAR(PerceiverARConfig(**SIZES))).eval()
    expected = model.generate([[3, 1, 4, 1, 5], [9, 2]], max_new_tokens=9, temperature=0)
    generated = (
        perceiver_io.accelerate(copy.deepcopy(model))
        .cuda()
        .generate([[3, 1, 4, 1, 5], [9, 2]], max_new_tokens=9, temperature=0)
    )
    for tokens in expected:
        assert torch.equal(next(generated).cpu(), tokens)
        torch.testing.assert_close(generated.logits.cpu(), expected.logits, rtol=1e-4, atol=1e-4)
    assert generated.cache.recorded is not None
    assert len(generated.cache.recorded._recordings) >= 1
