"""LAMB against optax's chain, step by step, and which parameters decay."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import perceiver_io
from perceiver_io.training import Lamb, decay_groups
from perceiver_io.training.gradients import global_norm
from tests.small_models import SMALL

# Written by make_lamb_golden.py beside it.
GOLDEN = Path(__file__).parents[1] / "data" / "lamb.npz"


class Tensors(nn.Module):
    """The golden parameters, as modules whose kinds say which decay."""

    def __init__(self, initial: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 5)
        self.norm = nn.LayerNorm(3, bias=False)
        self.zeros = nn.Parameter(torch.empty(2, 4))
        self.named = {
            "weight": self.linear.weight,
            "bias": self.linear.bias,
            "norm": self.norm.weight,
            "zeros": self.zeros,
        }
        for name, parameter in self.named.items():
            parameter.data = torch.from_numpy(initial[name].copy())


def ours(initial, gradients, rates) -> list[dict[str, np.ndarray]]:
    model = Tensors(initial)
    optimizer = Lamb(decay_groups(model, 0.1), lr=1.0)
    result = []
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        for name, parameter in model.named.items():
            parameter.grad = torch.from_numpy(gradient[name])
        optimizer.step()
        result.append({name: parameter.detach().numpy().copy() for name, parameter in model.named.items()})
    return result


def assert_equal_trajectories(actual, expected) -> None:
    for step, (ours_then, theirs_then) in enumerate(zip(actual, expected, strict=True)):
        for name, value in theirs_then.items():
            np.testing.assert_allclose(ours_then[name], value, atol=1e-6, rtol=0, err_msg=f"{name}, step {step}")


def test_equals_the_recorded_steps_of_optax() -> None:
    with np.load(GOLDEN) as file:
        golden = dict(file)
    names = ("weight", "bias", "norm", "zeros")
    initial = {name: golden[f"parameter/{name}"] for name in names}
    gradients = [{name: golden[f"gradient/{name}"][step] for name in names} for step in range(20)]
    expected = [{name: golden[f"result/{name}"][step] for name in names} for step in range(20)]
    norms = [np.sqrt(sum((value**2).sum() for value in gradient.values())) for gradient in gradients]
    assert min(norms) < 10 < max(norms)
    assert_equal_trajectories(ours(initial, gradients, golden["rates"]), expected)


def test_equals_optax_itself() -> None:
    pytest.importorskip("optax")
    from tests.data.make_lamb_golden import problem, trajectory

    assert_equal_trajectories(ours(*problem()), trajectory())


def test_a_parameter_without_gradient_stays() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5))
    optimizer = Lamb([used, unused], lr=0.1, weight_decay=0.1)
    optimizer.step()
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(5))
    assert not torch.equal(used, torch.ones(3))


def test_a_closure_computes_the_loss_with_gradients() -> None:
    parameter = nn.Parameter(torch.full((3,), 2.0))
    optimizer = Lamb([parameter], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 12
    assert parameter.square().sum() < 12


def test_global_norm_is_that_of_all_elements() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5)]
    expected = torch.cat([tensor.flatten() for tensor in tensors]).norm()
    torch.testing.assert_close(global_norm(tensors), expected)


@pytest.mark.parametrize("preset", ["language", "imagenet-conv"])
def test_decay_spares_biases_and_norms_alone(preset: str) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset])
    decayed, kept = (
        {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}
        for group in decay_groups(model, 0.1)
    )
    assert decayed | kept == {name for name, _ in model.named_parameters()}
    assert not decayed & kept
    assert all(name.endswith("bias") or "norm" in name for name in kept)
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
    assert "encoder.latents.embeddings" in decayed


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    groups = decay_groups(model, 0.05)
    assert [parameter for group in groups for parameter in group["params"]] == [model[1].weight, model[1].bias]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
