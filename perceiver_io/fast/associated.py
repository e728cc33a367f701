"""The order of products of `cross_attention` in operations that are differentiated, traced and cast.

The same algebra as there, and for few latents that attend to many inputs the only place of it: keys and values are the
normalised inputs as they are, which then need no gradients unless something before them is trained. Nothing that others
may keep is written in place, and the attention itself is `input_blocks`' or `products`', which keep no scores for the
backward pass. Dropout of outputs acts where it does in the plain block; dropout of weights is not for this file.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.attention import CrossAttention, unattended_as_zeros
from perceiver_io.fast import input_blocks
from perceiver_io.fast.linear import apply_linear, product
from perceiver_io.fast.products import attend_by_products


def gather(
    block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None = None, projects: bool = False
) -> Tensor:
    """Maps few queries and many inputs to what `block.attention` yields for these.

    Args:
        mask: [batch or 1, 1, inputs].
        projects: whether keys and values are computed after all, each block's when its turn comes: less work where
            they are narrower than the inputs. For `input_blocks` only.
    """
    attention, norm = block.attention, block.input_norm
    if mask is not None:
        inputs = unattended_as_zeros(inputs, mask)
    query = apply_linear(attention.query, block.query_norm(queries)) * attention.key.out_features**-0.5
    weight = None
    if projects:
        weight = torch.cat([attention.key.weight, attention.value.weight]) * norm.weight
    else:
        query = product(query, attention.key.weight.T) * norm.weight  # now meets inputs that are normalised only
    if attention.key.bias is not None and torch.is_grad_enabled():
        # It adds the same to all scores of a query. Its gradient is 0, but must be there: processes wait for it.
        query = query + 0 * attention.key.bias.sum()
    if projects or input_blocks.serves(query, inputs):
        means = input_blocks.attend_to_inputs(query, inputs, weight, mask, norm.eps)
    else:
        means = attend_by_products(query, F.layer_norm(inputs, norm.normalized_shape, eps=norm.eps), mask=mask)
    if projects:
        summary = means + product(norm.bias, attention.value.weight, attention.value.bias)
    else:
        summary = apply_linear(attention.value, means * norm.weight + norm.bias)
    if mask is not None:
        summary = summary.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return apply_linear(attention.output, summary)


def look_up(block: CrossAttention, queries: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
    """Maps many queries and few latents to what `block.attention` yields for these.

    Args:
        mask: [batch or 1, queries, 1].
    """
    attention, norm = block.attention, block.query_norm
    if mask is not None:
        latents = unattended_as_zeros(latents, mask)
    normed = block.input_norm(latents)
    key = apply_linear(attention.key, normed) * attention.key.out_features**-0.5
    key_rows = product(key, attention.query.weight.T)  # Wq goes to the keys
    score_bias = key_rows @ norm.bias.to(key_rows.dtype)
    if attention.query.bias is not None:
        score_bias = score_bias + key @ attention.query.bias.to(key.dtype)
    value_rows = product(apply_linear(attention.value, normed), attention.output.weight)  # Wo goes to the values
    rows = F.layer_norm(queries, norm.normalized_shape, eps=norm.eps)
    attended = attend_by_products(rows, key_rows * norm.weight, value_rows, score_bias.unsqueeze(1))
    if mask is not None:
        attended = attended.masked_fill(~mask, 0.0)
    return attended if attention.output.bias is None else attended + attention.output.bias.to(attended.dtype)
