"""Lists of tensors: operations are few however many tensors there are, and the norm of gradients is computed once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import perceiver_io
from perceiver_io.training import gradients, trainer
from perceiver_io.training.averaging import AveragedWeights
from perceiver_io.training.gradients import clip_gradients, cut_gradients, global_norm, gradients_of, known_norm
from perceiver_io.training.lamb import Lamb, decay_groups
from perceiver_io.training.muon import Muon, muon_groups
from tests.small_models import SMALL
from tests.training.small_run import make_trainer


class Counting(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def language(num_layers: int) -> nn.Module:
    """A model without values, which is updated as on a GPU, with gradients."""
    with torch.device("meta"):
        model = perceiver_io.create_model("language", **{**SMALL["language"], "num_self_attends_per_block": num_layers})
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    return model


def operations(kind: str, num_layers: int) -> Counter[str]:
    """Those of a step, or of taking the weights into the average."""
    model = language(num_layers)
    if kind == "average":
        average = AveragedWeights(model, 0.9)
        with Counting() as counting:
            average.update(3)
        return counting.counts
    optimizer = Lamb(decay_groups(model, 0.1), lr=0.1) if kind == "lamb" else Muon(muon_groups(model, 0.1), lr=0.1)
    optimizer.step()
    with Counting() as counting:
        optimizer.step()
    return counting.counts


@pytest.mark.parametrize("kind", ["lamb", "muon", "average"])
def test_more_tensors_are_no_more_operations(kind: str) -> None:
    few, many = operations(kind, 2), operations(kind, 9)
    assert few == many
    assert few.total() <= {"lamb": 60, "muon": 900, "average": 1}[kind]


def test_on_a_cpu_tensors_that_fit_its_cache_are_updated_together() -> None:
    parameters = [nn.Parameter(torch.ones(size)) for size in (3, 7, 2**16, 5, 2**17, 2**16 - 5, 5, 1)]
    optimizer = Lamb(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with Counting() as counting:
        optimizer.step()
    # (3, 7), (2**16), (5), (2**17), (2**16 - 5, 5), (1)
    assert counting.counts["aten._foreach_lerp_.Scalar"] == 6


def weight_with_gradient(gradient: float) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.full((4,), gradient)
    return weight, torch.optim.SGD([weight], lr=1.0)


def test_a_norm_that_is_known_is_taken_for_the_first_clipping_in_the_block() -> None:
    weight, optimizer = weight_with_gradient(3.0)
    with known_norm(optimizer, torch.tensor(60.0)):
        clip_gradients(optimizer, 30.0)
        assert torch.equal(weight.grad, torch.full((4,), 1.5))
        clip_gradients(optimizer, 1.5)
        assert torch.equal(weight.grad, torch.full((4,), 0.75))
    with known_norm(optimizer, torch.tensor(60.0)):
        pass
    clip_gradients(optimizer, 0.5)
    assert torch.equal(weight.grad, torch.full((4,), 0.25))


def test_gradients_that_were_cut_have_another_norm() -> None:
    weight, optimizer = weight_with_gradient(-3.0)
    with known_norm(optimizer, torch.tensor(6.0)):
        cut_gradients(optimizer, 2.0)
        clip_gradients(optimizer, 2.0)
    assert torch.equal(weight.grad, torch.full((4,), -1.0))


def test_the_trainer_computes_the_norm_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counted(tensors: Any) -> torch.Tensor:
        computed.append(global_norm(tensors))
        return computed[-1]

    monkeypatch.setattr(gradients, "global_norm", counted)
    monkeypatch.setattr(trainer, "global_norm", counted)
    run = make_trainer(tmp_path, num_steps=3)
    run.fit()
    assert len(computed) == 3
    assert gradients_of(run.optimizer) == []
