"""Where there is a CUDA device: the golden cases, the task models in every precision and a training step run on it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import perceiver_io
from perceiver_io.fast import with_graphs
from perceiver_io.weights.haiku_conversion import convert_parameters
from perceiver_io.weights.pystate import HaikuCheckpoint
from tests.golden import Case, cases
from tests.parity.test_models import check_outputs, preset_of
from tests.randomised import randomised
from tests.small_models import SMALL, small_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# In standard deviations of the output; float32 without TF32, other precisions as in tests/test_precision.py.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 0.15, torch.float16: 0.02}


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
        twin: Any = perceiver_io.accelerate(model, dtype=dtype).cuda()
        run = with_graphs(twin) if graphs else twin
        given = [(x.to(dtype) if x.is_floating_point() else x).cuda() for x in inputs]
        for _ in range(2):
            assert_close(run(*given), expected, TOLERANCES[dtype])
    if graphs:
        assert run.num_recordings == 1


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_a_training_step(name: str, precision: torch.dtype | None) -> None:
    model = randomised(perceiver_io.create_model(name, **SMALL[name])).train()
    twin = copy.deepcopy(model).cuda()
    inputs = small_inputs(model)
    sum(output.square().mean() for output in tree_leaves(model(*inputs))).backward()
    with torch.autocast("cuda", precision, enabled=precision is not None):
        loss = sum(output.float().square().mean() for output in tree_leaves(twin(*(x.cuda() for x in inputs))))
    loss.backward()
    torch.optim.AdamW(twin.parameters(), fused=True).step()
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        assert ours.isfinite().all()
        if precision is None and theirs.grad is not None:
            assert (ours.grad.cpu() - theirs.grad).abs().max() <= 1e-3 * theirs.grad.abs().max() + 1e-6
