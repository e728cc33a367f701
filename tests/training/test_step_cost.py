"""The cost of a step that is not taken, against the same step taken."""

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import default_collate

import perceiver_io
from perceiver_io.training import Draw, Lamb, decay_groups
from perceiver_io.training.language import MaskedLanguageObjective
from perceiver_io.training.muon import Muon, muon_groups
from perceiver_io.training.step_cost import Meter, optimizer_bytes, step_cost
from tests.small_models import SMALL
from tests.training.small_run import Pictures, objective

WIDER = {**SMALL["imagenet-fourier"], "num_latents": 96, "num_latent_channels": 66, "num_self_attends_per_block": 3}


def small_model(checkpointing: bool = False) -> nn.Module:
    model = perceiver_io.create_model("imagenet-fourier", **WIDER).train()
    model.encoder.gradient_checkpointing = checkpointing
    return model


def batch(number: int = 5) -> dict[str, torch.Tensor]:
    return default_collate([Pictures()[Draw(index, index)] for index in range(number)])


def saved_bytes(model: nn.Module) -> int:
    """Bytes that a real forward pass saves for the backward pass, weights left out."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective(model, batch(), torch.Generator())["loss"]
    return sum(storage.nbytes() for storage in saved.values())


def test_what_is_kept_for_the_backward_pass_is_predicted() -> None:
    model = small_model()
    assert step_cost(model, objective, batch()).activation_bytes == pytest.approx(saved_bytes(model), rel=0.01)


def test_work_is_that_of_the_real_step() -> None:
    model = small_model()
    linear = nn.Linear(7, 5)
    with Meter() as meter:
        linear(torch.ones(3, 7, requires_grad=True)).sum().backward()
    assert meter.flops == 3 * 2 * 3 * 7 * 5  # forwards, and for the gradients of inputs and weights
    with Meter() as meter:
        objective(model, batch(), torch.Generator())["loss"].backward()
    assert step_cost(model, objective, batch()).flops == meter.flops


def test_checkpointing_trades_memory_for_work() -> None:
    kept, again = (step_cost(small_model(checkpointing), objective, batch()) for checkpointing in (False, True))
    assert again.activation_bytes < kept.activation_bytes / 3
    assert again.flops > kept.flops * 1.2


def test_half_of_the_bits_need_less() -> None:
    whole, half = (step_cost(small_model(), objective, batch(), autocast=dtype) for dtype in (None, torch.bfloat16))
    assert half.activation_bytes < 0.8 * whole.activation_bytes
    assert half.flops == whole.flops


def test_objectives_may_choose_by_value() -> None:
    model = perceiver_io.create_model("language", **SMALL["language"]).train()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (3, model.config.max_seq_len), generator=generator)
    masked = torch.arange(tokens.shape[1]) % 5 == torch.arange(3)[:, None]
    assert step_cost(model, MaskedLanguageObjective(), {"tokens": tokens, "masked": masked}).flops > 0


def test_the_model_stays_as_it_is() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step_cost(model, objective, batch())
    optimizer_bytes(model, lambda model: Lamb(decay_groups(model, 0.1), lr=1.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make_optimizer", "copies"),
    [
        (lambda model: Lamb(decay_groups(model, 0.1), lr=0.1), 2),
        (lambda model: torch.optim.AdamW(model.parameters()), 2),
        (lambda model: torch.optim.SGD(model.parameters(), momentum=0.9), 1),
    ],
)
def test_an_optimizers_state_is_so_many_copies(make_optimizer: object, copies: int) -> None:
    model = small_model()
    assert callable(make_optimizer)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert optimizer_bytes(model, make_optimizer) == copies * weights


def test_a_real_optimizer_has_the_state_that_was_predicted() -> None:
    model = small_model()

    def make(model: nn.Module) -> Optimizer:
        return Muon(muon_groups(model, 0.1), lr=0.01)

    predicted, optimizer = optimizer_bytes(model, make), make(model)
    objective(model, batch(), torch.Generator())["loss"].backward()
    optimizer.step()
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    assert predicted == sum(tensor.nbytes for tensor in tensors if tensor.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_worst_moment_is_predicted(checkpointing: bool) -> None:
    model = small_model(checkpointing)
    predicted = step_cost(model, objective, batch()).peak_bytes
    objective(model, batch(), torch.Generator())["loss"].backward()  # gradients are there, as in later micro-batches
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        objective(model, batch(), torch.Generator())["loss"].backward()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert predicted == pytest.approx(peak, rel=0.03)
