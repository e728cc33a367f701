"""Which way attention is computed, by device, dtype, widths, lengths and mask: the one place that decides.

The rules are what measurements say (benchmarks/RESULTS.md, one H100): torch's flash and cuDNN kernels take heads of up
to 256 channels in half precision, and are the fastest there. Everything else goes to the memory-efficient kernel, which
keeps no more than 128 channels at hand, and at 264 and above is four to twenty times slower than two batched products
with a softmax between them. Which of its own kernels torch takes is left to torch: its switches are one for all
threads.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

# "products": two batched products (`products`). "blocks": the same for so many heads and queries at a time that their
# scores stay in a CPU's cache (`blocks`). "fused": torch's fused kernels.
Way = Literal["blocks", "products", "fused"]

# Channels of a head that the fused kernels of a GPU serve well.
_WIDEST_IN_HALF_PRECISION = 256
_WIDEST = 128


class Heads(NamedTuple):
    """A call of attention.

    Attributes:
        device: its kind, see `kind_of`.
        dtype: of queries, keys and values, after autocasting.
        queries: how many attend.
        inputs: how many are attended to.
        qk_channels: width of a head's queries and keys.
        v_channels: width of a head's values.
        is_masked: whether some queries may not attend to some inputs.
        is_inference: whether nothing but values is computed: no gradients, no compiler that looks on.
    """

    device: str
    dtype: torch.dtype
    queries: int
    inputs: int
    qk_channels: int
    v_channels: int
    is_masked: bool
    is_inference: bool


def choose(heads: Heads) -> Way:
    """Maps a call of attention to the way that is the fastest for it."""
    if heads.device == "cpu":
        return _choose_on_cpu(heads)
    if heads.device != "cuda" or min(heads.queries, heads.inputs) < 1:
        return "fused"
    is_half = heads.dtype in (torch.bfloat16, torch.float16)
    widest = _WIDEST_IN_HALF_PRECISION if is_half else _WIDEST
    return "products" if max(heads.qk_channels, heads.v_channels) > widest else "fused"


def _choose_on_cpu(heads: Heads) -> Way:
    """Maps a call on a CPU to its way.

    Torch's fused kernel wants equal widths, and without it torch takes its time over rows of nothing. In bfloat16,
    products with a softmax between are faster than that kernel; in float16 they take several times as long as what
    torch does for any widths.
    """
    is_served = heads.qk_channels == heads.v_channels
    if heads.is_inference:
        is_fused = heads.dtype == torch.float16 or (is_served and heads.dtype != torch.bfloat16)
        return "fused" if is_fused else "blocks"
    return "fused" if is_served or heads.is_masked else "products"


def kind_of(tensor: Tensor) -> str:
    """The kind of device that a tensor is treated as lying on; the meta device stands for a CPU."""
    return "cpu" if tensor.device.type == "meta" else tensor.device.type


def is_made_with_gradients(tensor: Tensor) -> bool:
    """Whether there is more than one way on a tensor's device where gradients or autocasting look on.

    Compilers for CPUs take the plain module.
    """
    kind = kind_of(tensor)
    return kind == "cuda" or (kind == "cpu" and not torch.compiler.is_compiling())
