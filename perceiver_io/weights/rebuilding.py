"""Whether a configuration says all that a model is, besides its weights: only then can it be saved as these two."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_io.fast import plain_class
from perceiver_io.models.config import ModelConfig
from perceiver_io.presets import model_from_config

# Settings of modules that a saved model does not keep; `nn.Module.compile` and `accelerate` set the last two.
_PASSING = {"training", "gradient_checkpointing", "_compiled_call_impl", "_recordings"}
_OF_ANY_MODULE = vars(nn.Module()).keys()
_HOOKS = {
    "_forward_pre_hooks": "before its forward",
    "_forward_hooks": "after its forward",
    "_state_dict_pre_hooks": "before its state_dict",
    "_state_dict_hooks": "after its state_dict",
}
# Of tables whose values are known: as bfloat16 rounds them, in which the model may have been.
_ROUNDING = 2**-8


def twin(config: ModelConfig, source: object) -> Any:
    """The model that a configuration builds, without weights, made in no time.

    Raises:
        ValueError: if no machine could hold it; names the `source` of the configuration.
    """
    try:
        with torch.device("meta"):
            return model_from_config(config)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(f"{source} has sizes that no machine could hold; correct them ({error})") from error


def uncompiled(name: str) -> str:
    """The name that a parameter or module had before `torch.compile` wrapped what it is part of."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def check_rebuilds(model: nn.Module, config: ModelConfig) -> None:
    """Checks that a model has the modules of its configuration, no others, set as there, and nothing attached.

    Raises:
        ValueError: for the first that is otherwise, naming it.
    """
    for difference in differences(model, twin(config, "the config")):
        raise ValueError(f"{difference}; load_model could not rebuild it: save its state_dict() instead")


def differences(model: nn.Module, rebuilt: nn.Module) -> Iterator[str]:
    """Yields what is otherwise in a model than in the one that its configuration builds, but for the weights."""
    given, expected = _modules(model), _modules(rebuilt)
    for name, module in expected.items():
        kind = plain_class(module)
        if name not in given:
            yield f"{name} is missing, a {kind.__name__} that its config asks for"
        elif (found := plain_class(given[name])) is not kind:
            yield f"{name or 'the model'} is of {found.__name__} and not of {kind.__name__}, as its config says"
    for name, module in given.items():
        if name not in expected:
            yield f"{name} is a {plain_class(module).__name__} that its config does not ask for"
    for name, module in model.named_modules():
        for hooks, when in _HOOKS.items():
            if getattr(module, hooks):
                yield f"{name or 'the model'} has a hook {when}, which is not saved; remove it with handle.remove()"
    of_given = {id(module): name for name, module in reversed(given.items())}
    of_expected = {id(module): name for name, module in reversed(expected.items())}
    for name, module in expected.items():
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            order = list(given[name]._modules)
            if order != list(module._modules):
                yield f"the parts of {name} stand in the order {', '.join(order)} and not in its config's"
        for setting in sorted(vars(given[name]).keys() - vars(module).keys() - _PASSING):
            if hasattr(type(module), setting):
                yield f"{setting} of {name or 'the model'} is set on this one module, in place of its class's"
        for setting, value in _settings(module).items():
            now = getattr(given[name], setting, None)
            if not _is_same(now, value, of_given, of_expected):
                where = f"{setting} of {name or 'the model'}"
                if isinstance(value, Tensor):
                    yield f"{where} has other values than those that its config gives it, and is not saved"
                yield f"{where} is {repr(now)[:200]} and not {repr(value)[:200]}, as its config says"


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """A model's modules by all of their names; of a compiled one, which has two, the one that it was made of."""
    return {uncompiled(name): module for name, module in model.named_modules(remove_duplicate=False)}


def _settings(module: nn.Module) -> dict[str, Any]:
    """All that a module has besides what its state dict says: values that it was built with, and computed tables."""
    names = vars(module).keys() - _OF_ANY_MODULE - _PASSING
    tables = {name: module.get_buffer(name) for name in sorted(module._non_persistent_buffers_set)}
    return {name: vars(module)[name] for name in sorted(names)} | tables


def _is_same(found: Any, expected: Any, of_found: Mapping[int, str], of_expected: Mapping[int, str]) -> bool:
    """Whether two settings are equal; modules in them must have the same name in either model, given by identity."""
    if isinstance(expected, nn.Module):
        return of_found.get(id(found)) == of_expected[id(expected)]
    if isinstance(expected, Tensor):
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            return False
        if found.is_meta:  # without values, like the weights, which is said of them
            return True
        if not expected.is_floating_point():
            return torch.equal(found.cpu(), expected.cpu())
        return torch.allclose(found.cpu().double(), expected.cpu().double(), rtol=_ROUNDING, atol=_ROUNDING)
    if isinstance(expected, list | tuple) and type(found) is type(expected) and len(found) == len(expected):
        return all(_is_same(one, other, of_found, of_expected) for one, other in zip(found, expected, strict=True))
    try:
        return bool(found == expected)
    except (RuntimeError, ValueError):  # of several numbers, in a tensor or an array, and so not one as expected
        return False
