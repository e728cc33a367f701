"""Linear layers at the machine's own speed.

On CPUs that are not Intel's, MKL, which `torch.nn.functional.linear` calls for float32, reaches less than half of the
speed of oneDNN, which is part of the same torch (195 against 440 GFLOP/s on two Zen 5 cores, equally precise).
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "gelu"]


class Linear(nn.Linear):
    """`torch.nn.Linear`, with the product chosen by `linear`."""

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Applies the layer."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*batch in_features"],
    weight: Float[Tensor, "out_features in_features"],
    bias: Float[Tensor, "out_features"] | None = None,
    activation: Activation = "none",
) -> Float[Tensor, "*batch out_features"]:
    """Maps x to `activation(x weightᵀ + bias)` by the fastest product there is; "gelu" is the tanh approximation."""
    if _onednn_serves(x, weight):
        algorithm = "tanh" if activation == "gelu" else ""
        # Of strided factors oneDNN makes a product a hundred times slower.
        x, weight = x.contiguous(), weight.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)
    product = F.linear(x, weight, bias)
    return F.gelu(product, approximate="tanh") if activation == "gelu" else product


class AffineMap(NamedTuple):
    """The weight [out_features, in_features] and bias of a linear layer that may be composed with others."""

    weight: Tensor
    bias: Tensor | None

    def after(self, first: "AffineMap") -> "AffineMap":
        """The map that applies `first`, then this one."""
        bias = self.bias if first.bias is None else linear(first.bias, self.weight, self.bias)
        return AffineMap(linear(self.weight, first.weight.T), bias)


def inference_only(tensor: Tensor) -> bool:
    """Whether no gradient is wanted, and this is no tracing or autocasting, whose rules the fast paths do not know."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return tensor.is_meta or not torch.is_autocast_enabled(tensor.device.type)


def _onednn_serves(x: Tensor, weight: Tensor) -> bool:
    return bool(
        inference_only(x)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )
