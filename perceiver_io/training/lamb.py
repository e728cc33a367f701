"""LAMB as the reference's recipe has it (You et al., "Large Batch Optimization for Deep Learning", 2020)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from perceiver_io.convolutions import BatchNorm

_NORMS = (nn.LayerNorm, BatchNorm)


class Lamb(Optimizer):
    """Adam whose every tensor moves in proportion to its own length.

    In order: gradients are scaled down to a global norm of `max_grad_norm` if theirs is larger; Adam's bias-corrected
    moments with `eps` outside the root; plus `weight_decay` times the parameter; times the tensor's trust ratio, the
    parameter's norm over the update's, or 1 where either is 0. It applies to biases and norms too, so tensors that are
    stored together are not trained as they would be apart. A parameter without a gradient stays as it is.

    Source: the reference's ImageNet script, where it is the chain of optax's `clip_by_global_norm`, `scale_by_adam`,
    `add_decayed_weights`, `scale_by_trust_ratio` and the learning rate.

    Args:
        params: parameters or groups of them; see `decay_groups`.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: for groups that do not say their own.
        max_grad_norm: the largest norm that all gradients together may have.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        max_grad_norm: float = 10.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.max_grad_norm = max_grad_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters. A `closure`, if given, computes the loss and the gradients first; it is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            norm = global_norm(gradients)
            scale = torch.where(norm < self.max_grad_norm, 1.0, self.max_grad_norm / norm)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, parameter.grad * scale, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        update = adam_direction(self.state[parameter], gradient, group["betas"], group["eps"])
        update.add_(parameter, alpha=group["weight_decay"])
        length, step_length = _norm(parameter), _norm(update)
        trust = torch.where((length > 0) & (step_length > 0), length / step_length, 1.0)
        parameter.add_(update * trust, alpha=-group["lr"])


def adam_direction(state: dict[str, Any], gradient: Tensor, betas: Sequence[float], eps: float) -> Tensor:
    """Maps a gradient to Adam's direction, of the same shape: the gradients' mean over the root of their mean square.

    Both means are corrected for their start at 0. Source: Kingma and Ba, "Adam", 2015, algorithm 1.

    Args:
        state: of the parameter, empty at first; it is updated.
        gradient: of the parameter, in its shape.
        betas: decay of the two means; a state that was saved and loaded has them as a list.
        eps: added to the root.
    """
    if not state:
        state["step"] = torch.zeros(())  # a tensor on the CPU, as in PyTorch's own optimisers
        state["mean"] = torch.zeros_like(gradient)
        state["variance"] = torch.zeros_like(gradient)
    state["step"] += 1
    step, (beta1, beta2) = state["step"].item(), betas
    mean = state["mean"].lerp_(gradient, 1 - beta1)
    variance = state["variance"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = (variance / (1 - beta2**step)).sqrt_().add_(eps)
    return (mean / (1 - beta1**step)).div_(root)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Maps a model to its trainable parameters in two groups for an optimiser: those that decay, and those that do not.

    Biases and the parameters of layer and batch norms do not. Latents and learned positions do. Source: the reference.
    """
    exempt = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_kept = name.rpartition(".")[2] == "bias" or id(parameter) in exempt
            (kept if is_kept else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Maps tensors to the Euclidean norm of all their elements, also where they are sharded over processes."""
    return torch.linalg.vector_norm(torch.stack([_norm(tensor) for tensor in tensors]))


def _norm(tensor: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
