"""A step of generation in one run: what it computes is tested with the plain one; here, when it stands aside."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import swap_tensors

import perceiver_io
from perceiver_io.fast import generation
from perceiver_io.fast.generation import FastPerceiverAR, Plan
from tests.autoregressive.small import CACHED, random_tokens, small_model


def fast_model(kind: str = "rotary", **overrides: Any) -> FastPerceiverAR:
    model = perceiver_io.accelerate(small_model(kind, **overrides))
    assert isinstance(model, FastPerceiverAR)
    return model


def is_in_use(run: Any) -> bool:
    return isinstance(run.cache.prepared, Plan)


def steps(model: Any, number: int = 8) -> tuple[list[Tensor], Any]:
    run = model.generate(random_tokens(5, 2), seed=1, max_new_tokens=number, num_latents=1)
    return [run.logits for _ in run], run


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "relu", "squared_relu", "geglu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_activations_and_precisions(activation: str, dtype: torch.dtype) -> None:
    model = fast_model(activation=activation).to(dtype)
    logits, run = steps(model)
    assert is_in_use(run) == (activation != "geglu")
    expected, _ = steps(perceiver_io.undo_accelerate(copy.deepcopy(model)))
    bar = 1e-5 if dtype == torch.float32 else 5e-2
    for ours, theirs in zip(logits, expected, strict=True):
        assert ((ours - theirs).float().abs().max() / theirs.float().std()).item() <= bar


@pytest.mark.parametrize("kind", CACHED)
def test_every_kind_is_served(kind: str) -> None:
    assert is_in_use(steps(fast_model(kind))[1])


def test_hooks_are_called() -> None:
    model, called = fast_model(), []
    block: Any = model.self_attends[1]
    block.attention.value.register_forward_hook(lambda *_: called.append(1))
    assert not is_in_use(steps(model)[1]) and len(called) == 8


@pytest.mark.parametrize("makes_inference_tensors", [False, True])
def test_what_changes_between_steps_counts(makes_inference_tensors: bool) -> None:
    changes: list[Any] = [
        lambda block: setattr(block.mlp.hidden, "weight", nn.Parameter(block.mlp.hidden.weight * 2)),
        lambda block: block.mlp.hidden.weight.data.mul_(2),
        lambda block: setattr(block, "mlp", copy.deepcopy(block.mlp).requires_grad_(False)),
        lambda block: setattr(block.attention.query.weight, "data", block.attention.query.weight.data.T),
        lambda block: swap_tensors(block.mlp.hidden.weight, nn.Parameter(block.mlp.hidden.weight * 2)),
        lambda block: setattr(block.mlp_norm, "eps", 1.0),
        lambda block: setattr(block.mlp, "activation", "relu"),
        lambda block: block.mlp.register_forward_hook(lambda *results: results[-1] * 2),
        lambda block: nn.utils.parametrizations.weight_norm(block.mlp.hidden),
    ]
    for change in changes:
        model = fast_model()
        plain = perceiver_io.undo_accelerate(copy.deepcopy(model))
        runs = [m.generate(random_tokens(5), seed=1, max_new_tokens=5, num_latents=1) for m in (model, plain)]
        for _ in range(3):
            next(runs[0]), next(runs[1])
        for m in (model, plain):
            with torch.inference_mode(makes_inference_tensors):
                change(m.self_attends[0])
        next(runs[0]), next(runs[1])
        assert torch.allclose(runs[0].logits, runs[1].logits, atol=1e-5)


def test_weights_that_are_no_parameters_count() -> None:
    model = fast_model()
    plain = perceiver_io.undo_accelerate(copy.deepcopy(model))
    state = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for batch in (1, 2):
        tokens, caches = torch.randint(6, 20, (batch, 5)), [m.new_cache() for m in (model, plain)]
        for step in range(5):
            if step == 3:
                state["self_attends.0.mlp.hidden.weight"].mul_(2)
            seen = tokens if step == 0 else tokens[:, -1:]
            with torch.inference_mode():
                ours, theirs = (
                    functional_call(m, state, (seen,), {"cache": cache})
                    for m, cache in zip((model, plain), caches, strict=True)
                )
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["rotary", "more_cross_attends"])
def test_blocks_that_are_replaced_between_steps_count(kind: str) -> None:
    for index in range(3):
        model = fast_model(kind)
        plain = perceiver_io.undo_accelerate(copy.deepcopy(model))
        runs = [m.generate(random_tokens(5), seed=1, max_new_tokens=5, num_latents=1) for m in (model, plain)]
        for m, run in zip((model, plain), runs, strict=True):
            for _ in range(3):
                next(run)
            further: Any = m.further_cross_attends
            owner, name = [(m, "cross_attend"), (m.self_attends, "1"), (further, next(iter(further), None))][index]
            if name is None:
                continue
            block = copy.deepcopy(getattr(owner, name))
            with torch.no_grad():
                block.mlp.hidden.weight.mul_(2)
            setattr(owner, name, block)
            next(run)
        assert torch.allclose(runs[0].logits, runs[1].logits, atol=1e-5)


def test_copies_of_weights_see_them_change() -> None:
    def replace(weight: nn.Parameter) -> None:
        weight.data = weight.data * 2

    changes: list[Any] = [
        lambda block: replace(block.mlp.hidden.weight),
        lambda block: block.mlp.hidden.load_state_dict({k: v * 2 for k, v in block.mlp.hidden.state_dict().items()}),
        lambda block: setattr(block.mlp.hidden, "weight", nn.Parameter(block.mlp.hidden.weight * 2)),
    ]
    for change in changes:
        model = fast_model()
        plain = perceiver_io.undo_accelerate(copy.deepcopy(model))
        runs = [m.generate(random_tokens(5, 2), seed=1, max_new_tokens=5, num_latents=1) for m in (model, plain)]
        for m, run in zip((model, plain), runs, strict=True):
            for _ in range(3):
                next(run)
            change(m.self_attends[0])
            next(run)
        assert torch.allclose(runs[0].logits, runs[1].logits, atol=1e-5)


def test_a_cache_that_is_filled_anew_forgets_copies_of_weights() -> None:
    model = fast_model()
    cache, tokens = model.new_cache(), random_tokens(5, 5)
    block: Any = model.self_attends[0]
    with torch.inference_mode():
        for _ in range(2):
            cache.clear()
            model.next_logits(torch.stack(list(tokens)), cache=cache, num_latents=2)
            block.mlp.hidden.weight.data.mul_(2)
            twin = copy.deepcopy(cache)
            ours = model.next_logits(torch.ones(2, 1, dtype=torch.long), cache=cache)
        theirs = perceiver_io.undo_accelerate(copy.deepcopy(model)).next_logits(
            torch.ones(2, 1, dtype=torch.long), cache=twin
        )
    assert cache.prepared is not None and twin.prepared is None
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_cache_serves_another_model() -> None:
    first, second = fast_model(), fast_model()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.1)
    cache = first.new_cache()
    tokens = random_tokens(5)[0][None]
    with torch.inference_mode():
        first.next_logits(tokens, cache=cache, num_latents=2)
        first.next_logits(tokens[:, :1], cache=cache)
        twin = copy.deepcopy(cache)
        ours = second.next_logits(tokens[:, :1], cache=cache)
        theirs = perceiver_io.undo_accelerate(copy.deepcopy(second)).next_logits(tokens[:, :1], cache=twin)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_gradients_are_left_to_the_plain_way() -> None:
    model = fast_model()
    cache = model.new_cache()
    tokens = random_tokens(5)[0][None]
    with torch.no_grad():
        model.next_logits(tokens, cache=cache, num_latents=2)
    logits = model.next_logits(tokens[:, :1], cache=cache)
    assert logits.requires_grad


def test_other_devices_are_left_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "make_plan", lambda *_: pytest.fail("the step was planned"))
    model = fast_model().to("meta")
    cache = model.new_cache()
    tokens = torch.zeros(1, 4, dtype=torch.long, device="meta")
    with torch.inference_mode():
        model.next_logits(tokens, cache=cache, num_latents=2)
        assert model.next_logits(tokens[:, :1], cache=cache).shape == (1, 23)


def test_a_step_that_others_kept_works_when_the_model_is_plain_again() -> None:
    model = fast_model()
    expected, _ = steps(model)
    model._attend = model._attend  # type: ignore[method-assign]
    logits, run = steps(perceiver_io.undo_accelerate(model))
    assert not is_in_use(run)
    for ours, theirs in zip(logits, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
