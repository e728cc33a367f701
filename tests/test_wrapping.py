"""Other libraries' layers around ours: the modules are ordinary ones, and what wraps them is always called."""

import copy
from typing import Any

import pytest
import torch

import perceiver_io
from tests.small_models import SMALL, small_inputs


@pytest.mark.parametrize("preset", SMALL)
def test_adapters_of_peft_act_on_an_accelerated_model(preset: str) -> None:
    peft = pytest.importorskip("peft")
    model = perceiver_io.create_model(preset, **SMALL[preset]).eval()
    inputs = small_inputs(model)
    plain = perceiver_io.undo_accelerate(copy.deepcopy(model))
    with torch.inference_mode():
        before = first(model(*inputs))

    def adapted(base: Any) -> Any:
        torch.manual_seed(3)
        names = ["query", "key", "value", "output", "hidden"]
        wrapped = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False))
        return wrapped.eval()

    fast, slow = adapted(model), adapted(plain)
    with torch.inference_mode():
        after, expected = first(fast(*inputs)), first(slow(*inputs))
    assert (after - before).abs().max() > 1e-3 * before.std()
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    fast.train()
    first(fast(*inputs)).square().mean().backward()
    trained = [name for name, parameter in fast.named_parameters() if parameter.requires_grad]
    assert trained and all("lora" in name for name in trained)
    assert all(parameter.grad is not None for name, parameter in fast.named_parameters() if name in trained)
    with torch.inference_mode():
        after = first(fast.eval()(*inputs))  # a batch norm has seen the batch
        merged = fast.merge_and_unload()
        torch.testing.assert_close(first(merged(*inputs)), after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", SMALL)
def test_hooks_of_accelerate_keep_a_forward_that_works_also_when_the_model_is_plain_again(preset: str) -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    model = perceiver_io.create_model(preset, **SMALL[preset]).eval()
    inputs = small_inputs(model)
    with torch.inference_mode():
        expected = first(model(*inputs))
        for module in list(model.modules()):
            hooks.add_hook_to_module(module, hooks.ModelHook())
        torch.testing.assert_close(first(model(*inputs)), expected, rtol=1e-4, atol=1e-4)
        perceiver_io.undo_accelerate(model)
        torch.testing.assert_close(first(model(*inputs)), expected, rtol=1e-4, atol=1e-4)


def first(outputs: Any) -> torch.Tensor:
    """All of a model's outputs as one vector for each example."""
    if isinstance(outputs, dict):
        return torch.cat([value.flatten(1) for value in outputs.values()], dim=1)
    return outputs.flatten(1)
