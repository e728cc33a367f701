"""Fused attention where torch has it, within the limits of its backends.

CUDA: flash attention takes widths up to 256 and no mask, memory-efficient attention any width that is a multiple of 8
(4 in float32). Other widths fall back to the full score matrix, so that they are padded with zeros, which change
neither products nor results, and the scale is given explicitly. What a fully masked row yields depends on the backend,
so that such rows are wiped afterwards.

CPU: torch's flash attention needs equal widths of queries and values and multiplies with MKL. Products of one head and
some hundred queries at a time, at the speed of `linear`, are faster, and their scores stay in the cache.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.linear import inference_only, linear

# Queries of a head whose scores are computed at a time on a CPU.
_CPU_BLOCK_ROWS = 512


def fused_attend(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
    dropout_prob: float = 0.0,
) -> Float[Tensor, "batch heads queries v_channels"] | None:
    """Attends as `attention.attend` does if a fused kernel is the better choice, else returns None."""
    if query.device.type == "cuda":
        return padded_attend(query, key, value, mask, dropout_prob)
    if mask is None and dropout_prob == 0 and inference_only(query):
        return _attend_in_blocks(query, key, value)
    return None


def padded_attend(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
    dropout_prob: float = 0.0,
    scale: float | None = None,
    width_multiple: int | None = None,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Attends by torch's fused kernels.

    Args:
        scale: of the scores; default 1/sqrt(qk_channels).
        width_multiple: widths are padded to a multiple of it; default what the device's kernels take.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    v_channels = value.shape[-1]
    (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1])
    if width_multiple is None:
        width_multiple = 1 if query.device.type != "cuda" else 4 if query.dtype == torch.float32 else 8
    query, key, value = (
        F.pad(x, (0, -x.shape[-1] % width_multiple)).expand(batch, -1, -1, -1) for x in (query, key, value)
    )
    if mask is not None:
        mask = mask.unsqueeze(1)  # the same for all heads
    attended = F.scaled_dot_product_attention(query, key, value, mask, dropout_prob, scale=scale)[..., :v_channels]
    if mask is not None:
        attended = attended.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return attended


def _attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attends by two products per head and block of queries."""
    _, heads, rows, channels = query.shape
    (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1])
    query = (query * channels**-0.5).contiguous().expand(batch, -1, -1, -1)
    key = key.contiguous().expand(batch, -1, -1, -1)
    value_columns = value.transpose(-1, -2).contiguous().expand(batch, -1, -1, -1)
    attended = query.new_empty(batch, heads, rows, value.shape[-1])
    for head in ((example, head) for example in range(batch) for head in range(heads)):
        for block in range(0, rows, _CPU_BLOCK_ROWS):
            part = slice(block, block + _CPU_BLOCK_ROWS)
            weights = linear(query[head][part], key[head]).softmax(-1)
            attended[head][part] = linear(weights, value_columns[head])
    return attended
