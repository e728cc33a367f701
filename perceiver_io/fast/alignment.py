"""Rows of half precision on GPUs, in the lengths that tensor cores take: multiples of 16 bytes.

Of other lengths (322 channels of optical flow, 261 of ImageNet, 52,097 inputs of a video) NVIDIA's libraries have the
kernels of earlier cards only, on an H100 three times as slow and more, as others report; it was not measured here.
Zeros at the end of all rows change no product, and cost one pass over rows that are read many times. Biases of scores,
which would be added in a pass over all scores, are a channel of the keys as well, which meets ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.fast import choice

_MULTIPLE = 8
_DTYPES = {torch.bfloat16, torch.float16}


def is_wanted(like: Tensor) -> bool:
    """Whether products on a tensor's device, in its dtype, want aligned rows; compilers see to that themselves."""
    return like.dtype in _DTYPES and choice.kind_of(like) == "cuda" and not torch.compiler.is_compiling()


def missing(size: int, like: Tensor) -> int:
    """How many numbers a row of `size` lacks: 0 where nothing is gained."""
    return -size % _MULTIPLE if is_wanted(like) else 0


def surplus(size: int, like: Tensor) -> int:
    """How many numbers a row of `size` has too many: 0 where nothing is gained, and where no other would be left."""
    return size % _MULTIPLE if is_wanted(like) and size >= _MULTIPLE else 0


def lengthened(x: Tensor, more: int, dim: int = -1) -> Tensor:
    """Appends zeros along an axis. An example that stands for a whole batch stays one."""
    if not more:
        return x
    if _is_repeated(x):
        return lengthened(x[:1], more, dim).expand(len(x), *[-1] * (x.ndim - 1))
    shape = list(x.shape)
    shape[dim] = more
    return torch.cat([x, x.new_zeros([1] * x.ndim).expand(shape)], dim)


def with_biases(
    keys: Float[Tensor, "batch inputs channels"], score_bias: Float[Tensor, "batch 1 inputs"] | None
) -> Float[Tensor, "batch aligned_inputs aligned_channels"]:
    """Appends a channel of biases to keys, and inputs whose bias is so low that nobody attends to them."""
    if score_bias is None:
        score_bias = keys.new_zeros(1, 1, 1).expand(len(keys), 1, keys.shape[1])
    if _is_repeated(keys) and _is_repeated(score_bias):
        return with_biases(keys[:1], score_bias[:1]).expand(len(keys), -1, -1)
    more = missing(keys.shape[1], keys)
    # Infinite ones would make NaN of zeros.
    lowest = keys.new_full((1, 1, 1), torch.finfo(keys.dtype).min).expand(len(keys), 1, more)
    biases = torch.cat([score_bias, lowest], dim=2).transpose(1, 2)
    return lengthened(torch.cat([lengthened(keys, more, dim=1), biases], dim=2), missing(keys.shape[2] + 1, keys))


def with_ones(
    rows: Float[Tensor, "batch rows channels"], aligned_channels: int
) -> Float[Tensor, "batch rows aligned_channels"]:
    """Appends to rows what meets the channels that `with_biases` gave to keys: ones, and zeros."""
    if _is_repeated(rows):
        return with_ones(rows[:1], aligned_channels).expand(len(rows), -1, -1)
    constants = rows.new_zeros(1, 1, aligned_channels - rows.shape[2])
    constants[:, :, 0].fill_(1)
    return torch.cat([rows, constants.expand(*rows.shape[:2], -1)], dim=2)


def _is_repeated(x: Tensor) -> bool:
    return len(x) > 1 and x.stride(0) == 0
