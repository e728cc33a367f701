"""Attention of several heads and the MLP, for inference and in part for training.

The formulas are those of `perceiver_io.attention`; the products are `linear`'s. Torch's fused attention on CPUs needs
equal widths of queries and values; where it does not serve, several heads are one batched product with as many queries
as keep the scores in the cache, a softmax, and another product (`blocks`). Few and large operations, because the
threads of each wait for one another, which another process that wants their core prolongs. Not for dropout. On GPUs
wide heads are two batched products; `choice` decides.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver_io.attention import MLP, Attention, Cache, Rotations, activate, attend
from perceiver_io.fast import choice
from perceiver_io.fast.blocks import attend_in_blocks
from perceiver_io.fast.gate import are_alike, drops, is_bracketed_freely, is_plain_inference, is_untouched
from perceiver_io.fast.linear import apply_linear, gated_product, product
from perceiver_io.fast.products import attend_heads_by_products

# Queries of all heads that attend causally at a time.
_CAUSAL_ROWS = 128


class FastMLP(MLP):
    """`MLP` with its products by `linear`, and GELU (the reference's) or GEGLU as part of the first."""

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Applies the two layers row by row."""
        if not isinstance(self, FastMLP) or not is_plain_inference(x) or drops(self):
            return MLP.forward(self, x)
        return apply_linear(self.output, activated(self, x))


def activated(mlp: MLP, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch hidden"]:
    """The hidden layer of an MLP after its activation."""
    hidden = mlp.hidden
    if is_untouched(hidden) and are_alike(x, hidden.weight, hidden.bias):
        if mlp.activation == "gelu_tanh":
            return product(x, hidden.weight, hidden.bias, "gelu")
        if mlp.activation == "geglu":
            return gated_product(x, hidden.weight, hidden.bias)
    return activate(apply_linear(hidden, x), mlp.activation)


class FastAttention(Attention):
    """`Attention` with its products by `linear`, and attention the way that `choice` says."""

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch queries output_channels"]:
        """Attends; a batch of one on either side stands for all examples."""
        is_inference = is_plain_inference(queries, inputs)
        has_choice = is_inference or (
            choice.is_made_with_gradients(queries) and not self.causal and is_bracketed_freely(queries, inputs)
        )
        if not isinstance(self, FastAttention) or drops(self) or not has_choice:
            return Attention.forward(self, queries, inputs, mask, rotations, cache)
        query, key, value = (
            self.split_heads(apply_linear(layer, rows))
            for layer, rows in ((self.query, queries), (self.key, inputs), (self.value, inputs))
        )
        if rotations is not None:
            query, key = rotations(query, key)
        if cache is not None:
            key, value = cache(key, value)
        if self.causal and query.shape[-2] <= key.shape[-2]:
            attended = attend_causally(query, key, value, mask)
        elif self.causal:  # the first queries see nothing at all
            attended = attend(query, key, value, mask, causal=True)
        else:
            attended = attend_by_choice(query, key, value, mask, is_inference)
        return apply_linear(
            self.output, rearrange(attended, "batch heads rows channels -> batch rows (heads channels)")
        )


def attend_by_choice(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None,
    is_inference: bool,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Attends as `perceiver_io.attention.attend` does, the way that `choice` says."""
    call = choice.Heads(
        device=choice.kind_of(query),
        dtype=query.dtype,
        queries=query.shape[-2],
        inputs=key.shape[-2],
        qk_channels=key.shape[-1],
        v_channels=value.shape[-1],
        is_masked=mask is not None,
        is_inference=is_inference,
    )
    match choice.choose(call):
        case "blocks":
            return attend_in_blocks(query, key, value, mask)
        case "products":
            return attend_heads_by_products(query, key, value, mask)
        case "fused":
            return attend(query, key, value, mask)


def attend_causally(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Attends as the causal `perceiver_io.attention.attend` does, a block of queries at a time.

    No block meets the inputs after its last query, and no mask is as large as all queries by all inputs.
    """
    rows, inputs = query.shape[-2], key.shape[-2]
    if mask is not None:
        mask = mask.expand(-1, rows, inputs)
    blocks = []
    for block in range(0, rows, _CAUSAL_ROWS):
        part = slice(block, min(block + _CAUSAL_ROWS, rows))
        seen = inputs - rows + part.stop
        visible = None if mask is None else mask[:, part, :seen]
        blocks.append(attend(query[:, :, part], key[:, :, :seen], value[:, :, :seen], visible, causal=True))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)
