"""Products with weights at the machine's own speed.

On CPUs that are not Intel's, MKL, which `torch.nn.functional.linear` calls for float32, reaches less than half of the
speed of oneDNN, which is part of the same torch (195 against 440 GFLOP/s on two Zen 5 cores, equally precise). oneDNN
also applies the GELU of an MLP while the product is still in the cache. It has no gradient. In bfloat16, where the
processor multiplies that, torch calls oneDNN itself, but copies the bias first and applies the GELU in a pass of its
own. On GPUs cuBLAS applies the GELU. A single row is another matter: its product takes as long as its weight takes to
be read, and a batch of two products (MKL's) reads at twice the rate of one, be it MKL's or oneDNN's.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

from perceiver_io.fast import choice
from perceiver_io.fast.alignment import lengthened, missing
from perceiver_io.fast.gate import are_alike, is_untouched


def product(
    x: Float[Tensor, "*batch in_features"],
    weight: Float[Tensor, "out_features in_features"],
    bias: Float[Tensor, "out_features"] | None = None,
    activation: Literal["none", "gelu"] = "none",
) -> Float[Tensor, "*batch out_features"]:
    """Maps x to `activation(x weightᵀ + bias)`; "gelu" is the tanh approximation."""
    if _onednn_serves(x, weight, bias):
        if x.numel() != x.shape[-1]:
            algorithm = "tanh" if activation == "gelu" else ""
            # Of strided factors oneDNN makes a product a hundred times slower.
            return torch.ops.mkldnn._linear_pointwise(
                x.contiguous(), weight.contiguous(), bias, activation, [], algorithm
            )
        result = row_product(x, weight, bias)
    elif activation == "gelu" and bias is not None and _cublas_applies_gelu(x, weight, bias):
        rows = torch._addmm_activation(bias, x.reshape(-1, x.shape[-1]), weight.T, use_gelu=True)
        return rows.view(*x.shape[:-1], -1)
    else:
        result = F.linear(x, weight, bias)
    return F.gelu(result, approximate="tanh") if activation == "gelu" else result


def row_product(
    x: Float[Tensor, "*ones in_features"],
    weight: Float[Tensor, "out_features in_features"],
    added: Float[Tensor, "*#ones out_features"] | None = None,
) -> Float[Tensor, "*ones out_features"]:
    """Maps a single row to `x weightᵀ + added`, as a batch of two products: one for each half of the weight."""
    halves = in_halves(weight)
    # Of the same column with other strides, such as x.view(1, -1, 1) has, MKL takes five times as long.
    column = x.reshape(1, -1).t().expand(halves.shape[0], -1, -1)
    if added is None:
        return torch.bmm(halves, column).view(*x.shape[:-1], -1)
    return torch.baddbmm(added.reshape(*halves.shape[:2], 1), halves, column).view(*x.shape[:-1], -1)


def in_halves(weight: Float[Tensor, "out_features in_features"]) -> Float[Tensor, "parts rows in_features"]:
    """Views a weight as two halves; an odd number of rows as one part."""
    return weight.view(1 if weight.shape[0] % 2 else 2, -1, weight.shape[1])


def gated_product(
    x: Float[Tensor, "*batch in_features"],
    weight: Float[Tensor, "both_halves in_features"],
    bias: Float[Tensor, "both_halves"] | None = None,
) -> Float[Tensor, "*batch out_features"]:
    """Maps x to GEGLU of `x weightᵀ + bias`: the first half times the exact GELU of the second. As `product`.

    The two halves are two products, the second with its GELU, the first with the multiplication.
    """
    if not _onednn_serves(x, weight, bias):
        values, gates = F.linear(x, weight, bias).chunk(2, dim=-1)
        return values * F.gelu(gates)
    if x.numel() == x.shape[-1]:
        values, gates = row_product(x, weight, bias).chunk(2, dim=-1)
        return values * F.gelu(gates)
    x = x.contiguous()
    value_weight, gate_weight = weight.contiguous().chunk(2)
    value_bias, gate_bias = (None, None) if bias is None else bias.contiguous().chunk(2)
    gates = torch.ops.mkldnn._linear_pointwise(x, gate_weight, gate_bias, "gelu", [], "none")
    return torch.ops.mkldnn._linear_pointwise.binary(x, gates, value_weight, value_bias, "mul")


def batched_product(
    x: Float[Tensor, "#batch rows in_features"],
    weights: Float[Tensor, "#batch out_features in_features"],
    bias: Float[Tensor, "#batch 1 out_features"] | None = None,
) -> Float[Tensor, "batch rows out_features"]:
    """Maps each example's rows to `x weightsᵀ + bias`, with weights of its own; fastest on CPUs for one example."""
    if _onednn_serves(x, weights, bias) and len(x) == len(weights) == 1:
        return product(x, weights[0], None if bias is None else bias[0, 0])
    columns = weights.transpose(-1, -2)
    if bias is None:
        return x @ columns
    if choice.kind_of(x) != "cuda":
        return x @ columns + bias
    batch = (max(x.shape[0], weights.shape[0]), -1, -1)
    return torch.baddbmm(bias, x.expand(batch), columns.expand(batch))


def apply_linear(layer: nn.Module, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
    """Maps x to `layer(x)`, by the faster product if the layer is a linear one and nothing else."""
    if isinstance(layer, nn.Linear) and is_untouched(layer) and are_alike(x, layer.weight, layer.bias):
        return product(x, layer.weight, layer.bias)
    return layer(x)


class AffineMap(NamedTuple):
    """The weight [out_features, in_features] and bias of a linear layer that may be composed with others."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Applies the map."""
        return product(x, self.weight, self.bias)

    def after(self, first: "AffineMap") -> "AffineMap":
        """The map that applies `first`, then this one."""
        bias = self.bias if first.bias is None else product(first.bias, self.weight, self.bias)
        return AffineMap(product(self.weight, first.weight.T), bias)

    def aligned(self) -> "AffineMap":
        """The same map with features of an `alignment` after its own, for rows that have zeros there, too."""
        more_outputs, more_inputs = (missing(size, self.weight) for size in self.weight.shape)
        bias = None if self.bias is None else lengthened(self.bias, more_outputs)
        return AffineMap(lengthened(lengthened(self.weight, more_inputs), more_outputs, dim=0), bias)


def _count_work(x_shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Multiplications and additions of a product that PyTorch's counter of work knows no formula of."""
    return 2 * math.prod(out_shape) * x_shape[-1]


def _count_work_after_bias(_: Sequence[int], *shapes: Sequence[int], **result: Any) -> int:
    return _count_work(*shapes, **result)


if torch.ops.aten._addmm_activation not in flop_registry:
    register_flop_formula(torch.ops.aten._addmm_activation)(_count_work_after_bias)
if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._linear_pointwise not in flop_registry:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_count_work)


def _onednn_serves(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return bool(
        x.device.type == choice.kind_of(x) == "cpu"
        and _onednn_multiplies(x)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and are_alike(x, weight, bias)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


def _cublas_applies_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether product, bias and GELU are one kernel of cuBLAS, whose GELU is the tanh approximation.

    On other devices PyTorch's operation has the exact GELU.
    """
    return (
        x.device.type == "cuda"
        and not torch.is_autocast_enabled("cuda")
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and are_alike(x, weight, bias)
    )


def _onednn_multiplies(x: Tensor) -> bool:
    if x.dtype == torch.bfloat16:  # single rows gain nothing
        return x.numel() != x.shape[-1] and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return x.dtype == torch.float32
