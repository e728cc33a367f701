"""LAMB as the reference's recipe has it (You et al., "Large Batch Optimization for Deep Learning", 2020)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from perceiver_io.convolutions import BatchNorm
from perceiver_io.training.gradients import clip_gradients, norms

_NORMS = (nn.LayerNorm, BatchNorm)
# Elements of tensors that are updated together: on a CPU they stay in its cache; elsewhere, steps are few and take but
# half a gigabyte for what they compute on the way.
_MOST_ELEMENTS_ON_CPU, _MOST_ELEMENTS = 2**16, 2**26


class Lamb(Optimizer):
    """Adam whose every tensor moves in proportion to its own length.

    In order: gradients are scaled down, in place, to a global norm of `max_grad_norm` if theirs is larger; Adam's
    bias-corrected moments with `eps` outside the root; plus `weight_decay` times the parameter; times the tensor's
    trust ratio, the parameter's norm over the update's, or 1 where either is 0. It applies to biases and norms too, so
    tensors that are stored together are not trained as they would be apart. A parameter without a gradient stays as it
    is.

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
        clip_gradients(self, self.max_grad_norm)
        for group in self.param_groups:
            for parameters in updated_together(group):
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        updates = adam_directions(states, gradients, group["betas"], group["eps"])
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        lengths, step_lengths = norms(parameters), norms(updates)
        trust = torch.where((lengths > 0) & (step_lengths > 0), lengths / step_lengths, 1.0)
        torch._foreach_addcmul_(parameters, updates, trust.unbind(), value=-group["lr"])


def updated_together(group: dict[str, Any]) -> Iterator[list[Tensor]]:
    """Yields the parameters of a group that have gradients, in lists for PyTorch's functions for these."""
    together: list[Tensor] = []
    room = 0
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        if together and parameter.numel() > room:
            yield together
            together = []
        if not together:
            room = _MOST_ELEMENTS_ON_CPU if parameter.device.type == "cpu" else _MOST_ELEMENTS
        together.append(parameter)
        room -= parameter.numel()
    if together:
        yield together


def adam_directions(
    states: list[dict[str, Any]], gradients: list[Tensor], betas: Sequence[float], eps: float
) -> list[Tensor]:
    """Maps gradients to Adam's directions, of the same shapes: the gradients' mean over the root of their mean square.

    Both means are corrected for their start at 0. Source: Kingma and Ba, "Adam", 2015, algorithm 1.

    Args:
        states: of the parameters, empty at first; they are updated.
        gradients: of the parameters, in their shapes.
        betas: decay of the two means; a state that was saved and loaded has them as a list.
        eps: added to the root.
    """
    for state, gradient in zip(states, gradients, strict=True):
        if not state:
            state["step"] = torch.zeros(())  # a tensor on the CPU, as in PyTorch's own optimisers
            state["mean"] = torch.zeros_like(gradient)
            state["variance"] = torch.zeros_like(gradient)
    counts, means, variances = ([state[name] for state in states] for name in ("step", "mean", "variance"))
    beta1, beta2 = betas
    torch._foreach_add_(counts, 1)
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(variances, beta2)
    torch._foreach_addcmul_(variances, gradients, gradients, value=1 - beta2)
    steps = torch.stack(counts).tolist()
    roots = torch._foreach_div(variances, [1 - beta2**step for step in steps])
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, eps)
    directions = torch._foreach_div(means, [1 - beta1**step for step in steps])
    torch._foreach_div_(directions, roots)
    return list(directions)


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
