"""All that the fast layer assumes of a call. Where an assumption does not hold, modules are called as they are.

Fast paths bracket products otherwise and read weights past the layers that own them. That is the same function only if

* nobody differentiates (backwards or forwards), traces, compiles, exports or maps the call over batches, since fast
  paths write in place, decide by sizes, and use operators that these know no rules for;
* autocasting, which chooses a precision for each operation, is off;
* tensors are PyTorch's own, of one floating dtype on one device: a subclass (quantised, sharded) has its own rules;
* each layer that is read past is exactly of the class whose formula is used, with no hooks, parametrisations, adapters
  or replaced `forward`, of its own or of all modules.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.utils.module_tracker import ModuleTracker

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# The layers of PyTorch whose weights are read. The library's own modules are added by those who accelerate them.
_TRUSTED: set[type[nn.Module]] = {nn.Linear, nn.LayerNorm}


def trust(*classes: type[nn.Module]) -> None:
    """Adds classes whose instances may be read past when nothing is attached to them."""
    _TRUSTED.update(classes)


def is_plain_inference(*tensors: Tensor) -> bool:
    """Whether a call with these tensors is nothing but the computation of values."""
    first = tensors[0]
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (not first.is_meta and torch.is_autocast_enabled(first.device.type))
    ) and are_alike(*tensors)


def are_alike(*tensors: Tensor | None) -> bool:
    """Whether tensors are PyTorch's own, not empty, of one floating dtype and on one device; None does not count."""
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    return first.is_floating_point() and all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == first.dtype
        and tensor.device == first.device
        and tensor.numel() > 0
        for tensor in given
    )


def is_untouched(*modules: nn.Module) -> bool:
    """Whether calling these modules does what their class says, and nothing else."""
    return not _global_hooks() and all(
        type(module) in _TRUSTED
        and "forward" not in vars(module)
        and not any(vars(module)[hooks] for hooks in _HOOKS)
        and not (isinstance(module, nn.LayerNorm) and (module.weight is None or module.bias is None))
        for module in modules
    )


def drops(*modules: nn.Module) -> bool:
    """Whether one of these modules is training with dropout."""
    return any(module.training and module.dropout_prob for module in modules)


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
