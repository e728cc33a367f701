"""All that the fast layer assumes of a call. Where an assumption does not hold, modules are called as they are.

Fast paths bracket products otherwise and read weights past the layers that own them. That is the same function only if

* nobody differentiates (backwards or forwards), traces, compiles, exports or maps the call over batches, since fast
  paths write in place, decide by sizes, and use operators that these know no rules for; what `associated` asks for has
  rules of its own, and `is_bracketed_freely` instead;
* autocasting, which chooses a precision for each operation, is off, and nobody looks at operations or replaces them (a
  `TorchFunctionMode` or `TorchDispatchMode`, which fake tensors and `make_fx` are, too);
* tensors are PyTorch's own, of one floating dtype on one device, as rows of numbers in memory: a subclass (quantised,
  sharded, fake), a sparse or a nested one has its own rules;
* each layer that is read past is exactly of the class whose formula is used, with no hooks, parametrisations, adapters
  or replaced `forward`, of its own or of all modules;
* nobody replaced the methods of these classes, or the functions that they call, by others.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

import perceiver_io.attention

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # PyTorch 2.7 and later
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Attributes by which a module's call is another than its class's.
_REPLACED = {"forward", "_call_impl", "_compiled_call_impl"}
# Classes whose instances may be read past.
_TRUSTED: set[type[nn.Module]] = set()
# The functions whose formulas are used: where they are looked up, by which names, and what was found there at first.
_PLACES: list[Any] = []
_NAMES: list[str] = []
_FUNCTIONS: list[Any] = []


def trust(*classes: type[nn.Module]) -> None:
    """Adds classes whose instances may be read past when nothing is attached to them."""
    _TRUSTED.update(classes)
    for kind in classes:
        rely_on(kind, "forward", "__call__")


def rely_on(place: Any, *names: str) -> None:
    """Adds functions of a class or module whose formulas are used, so that no fast way serves when they are others."""
    for name in names:
        _PLACES.append(place)
        _NAMES.append(name)
        _FUNCTIONS.append(getattr(place, name))


trust(nn.Linear, nn.LayerNorm)
rely_on(nn.Module, "__call__", "_call_impl")
rely_on(F, "linear", "layer_norm", "scaled_dot_product_attention", "gelu", "relu")
rely_on(perceiver_io.attention, "attend", "activate")


def is_plain_inference(*tensors: Tensor) -> bool:
    """Whether a call with these tensors is nothing but the computation of values."""
    first = tensors[0]
    return (
        computes_values_only()
        and are_alike(*tensors)
        and (first.is_meta or not torch.is_autocast_enabled(first.device.type))
        and _are_functions_ours()
    )


def computes_values_only() -> bool:
    """Whether nothing differentiates, compiles, traces, maps over, observes or replaces what is computed now."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or _is_observed()
    )


def is_bracketed_freely(*tensors: Tensor | None) -> bool:
    """Whether products of these tensors may be bracketed otherwise, in operations that anybody may look at.

    Gradients, autocasting, compilers and exporters may be there; forward derivatives, `vmap` and tracing may not.
    """
    if torch.compiler.is_dynamo_compiling() and _is_exporting():  # for all sizes, and here sizes are compared
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    # A compiler looks at tensors of its own, and at what the functions are now.
    if not torch.compiler.is_compiling() and not (
        not (
            torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            or torch._C._are_functorch_transforms_active()
            or forward_ad._current_level >= 0
            or _is_observed(FakeTensorMode)  # which only follows shapes
        )
        and all(isinstance(tensor, FakeTensor) or are_alike(tensor) for tensor in given)
        and _are_functions_ours()
    ):
        return False
    casts = not first.is_meta and torch.is_autocast_enabled(first.device.type)
    return all(
        tensor.is_floating_point() and tensor.device == first.device and (casts or tensor.dtype == first.dtype)
        for tensor in given
    )


def are_alike(*tensors: Tensor | None) -> bool:
    """Whether tensors are PyTorch's own, strided, not empty, of one floating dtype and on one device.

    None does not count.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    return (
        all(
            type(tensor) in (Tensor, nn.Parameter)
            and tensor.layout == torch.strided
            and not tensor.is_nested
            and tensor.dtype == first.dtype
            and tensor.device == first.device
            and tensor.numel() > 0
            for tensor in given
        )
        and first.is_floating_point()
    )


def is_watched() -> bool:
    """Whether somebody sees operations, acts when any module is called, or replaced functions that are relied on."""
    return _is_observed() or _global_hooks() or not _are_functions_ours()


def is_untouched(*modules: nn.Module) -> bool:
    """Whether calling these modules does what their class says, and nothing else."""
    return not _global_hooks() and all(map(_is_itself, modules))


def _is_itself(module: nn.Module) -> bool:
    own = vars(module)  # asked for every module of a step of generation
    kind = type(module)
    return (
        kind in _TRUSTED
        and _REPLACED.isdisjoint(own)
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"])
        and not (own["_backward_hooks"] or own["_backward_pre_hooks"])
        and not (kind is nn.LayerNorm and any(own["_parameters"].get(name) is None for name in ("weight", "bias")))
    )


def _are_functions_ours() -> bool:
    """Whether nobody replaced the functions whose formulas are used."""
    return list(map(getattr, _PLACES, _NAMES)) == _FUNCTIONS


def drops(*modules: nn.Module) -> bool:
    """Whether one of these modules is training with dropout."""
    return any(module.training and module.dropout_prob for module in modules)


def _is_observed(*allowed: type) -> bool:
    """Whether a mode sees operations, other than PyTorch's counter of work and its default device for new tensors.

    A mode of which `only_looks_on` is true changes nothing, and wants to see what really happens.
    """
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()) and not all(
        type(mode) in (DeviceContext, *allowed)
        or type(mode).__module__ == FlopCounterMode.__module__
        or getattr(mode, "only_looks_on", False)
        for mode in (*_get_current_dispatch_mode_stack(), *_get_current_function_mode_stack())
    )


def _global_hooks() -> bool:
    """Whether hooks run on all modules, other than those that note which module runs (PyTorch's counter of work)."""
    kinds: Iterable[dict[Any, Any]] = (
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
    )
    return any(
        not isinstance(getattr(hook, "__self__", None), ModuleTracker) for kind in kinds for hook in kind.values()
    )
