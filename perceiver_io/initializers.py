"""Haiku's initialisers, so that training starts where the reference starts.

Both truncate a normal distribution at two of *its* standard deviations. Source: `haiku.initializers.TruncatedNormal`
and `haiku.initializers.VarianceScaling`.
"""

import math

import torch
from torch import Tensor, nn

# Standard deviation of a unit normal truncated to [-2, 2].
_TRUNCATED_STD = 0.87962566103423978


@torch.no_grad()
def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fills a tensor from N(0, std²) truncated to ±2 std (the resulting deviation is 0.88 std).

    By the inverse of the distribution function, as Haiku does: in place and several times faster than the rejection of
    `torch.nn.init.trunc_normal_`, whose temporary copies stay with the process.
    """
    edge = math.erf(2 / math.sqrt(2))
    return tensor.uniform_(-edge, edge).erfinv_().mul_(math.sqrt(2) * std).clamp_(-2 * std, 2 * std)


def variance_scaling_(weight: Tensor, fan_in: int) -> Tensor:
    """Fills a weight so that its deviation is 1/sqrt(fan_in), corrected for the truncation.

    What the reference uses for every linear layer of attention and of its MLPs.
    """
    return truncated_normal_(weight, 1 / math.sqrt(max(1, fan_in)) / _TRUNCATED_STD)


def haiku_linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer initialised as `haiku.Linear` is by default: no correction for the truncation, bias 0."""
    linear = nn.Linear(in_features, out_features)
    haiku_default_(linear, fan_in=in_features)
    return linear


def haiku_default_(layer: nn.Linear | nn.modules.conv._ConvNd, fan_in: int) -> None:
    """Initialises a linear or convolution layer as Haiku does by default: std 1/sqrt(fan_in) and bias 0."""
    truncated_normal_(layer.weight, 1 / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
