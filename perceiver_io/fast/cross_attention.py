"""Single-head cross-attention with its products associated the cheaper way.

With one head, `softmax(q Wq (k Wk)ᵀ) (v Wv) Wo` may be bracketed at will. Where few latents attend to many inputs, Wk
goes to the queries and Wv waits until after the attention, so that no key or value is computed for any input. Where
many queries attend to few latents, Wq goes to the latents' keys and Wo to their values, so that no query is projected.
Biases: the key's adds the same to all scores of a query and drops out; the query's adds one score per key; the value's
adds after the attention, except in rows that attend to nothing. Layer norm is linear but for the mean and deviation of
its row, so that its scale and shift go the same ways.

Here are the choice and, for inference, what many queries look up; `associated` has the rest. Rows are worked through in
blocks, so that the score matrix never exists as a whole. All of it is exact up to rounding.
It is less work where one side is many times as long as the other, which `gathers_cheaply` and `looks_up_cheaply` count.
Many inputs of a head that is narrower than they are have their keys and values computed, in blocks as well.
It must not be used where something acts on queries or keys between projection and product: several heads, rotations,
adapters, hooks, dropout.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.attention import MLP, Attention, Cache, CrossAttention, Rotations, unattended_as_zeros
from perceiver_io.fast import alignment, associated, choice, input_blocks
from perceiver_io.fast.alignment import lengthened, missing
from perceiver_io.fast.attention import FastAttention, FastMLP, activated
from perceiver_io.fast.gate import (
    are_alike,
    drops,
    is_bracketed_freely,
    is_plain_inference,
    is_untouched,
    rely_on,
    trust,
)
from perceiver_io.fast.linear import AffineMap, apply_linear, batched_product, product
from perceiver_io.fast.pieces import row_blocks


class FastCrossAttention(CrossAttention):
    """`CrossAttention` that associates the products of a single head the cheaper way."""

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch queries query_channels"]:
        """Applies the block; a batch of one on either side stands for all examples."""
        acted_on = rotations is not None or cache is not None  # between projection and product
        if acted_on or not isinstance(self, FastCrossAttention):
            return CrossAttention.forward(self, queries, inputs, mask, rotations, cache)
        x = None
        if associates(self, queries, inputs, mask):
            inputs, mask = drop_unattended(inputs, mask)
            if looks_up_cheaply(self, queries, inputs, mask):
                return look_up(self, queries, inputs, mask)
            x = _gather(self, queries, inputs, mask)
        elif may_be_bracketed(self, queries, inputs, mask):
            if looks_up_cheaply(self, queries, inputs, mask):
                x = associated.look_up(self, queries, inputs, mask)
            else:
                x = _gather(self, queries, inputs, mask)
        if x is None:
            return CrossAttention.forward(self, queries, inputs, mask)
        x = F.dropout(x, self.dropout_prob, self.training)
        if self.use_query_residual:
            x = queries + x
        return x + self.mlp(self.mlp_norm(x))


trust(Attention, FastAttention, CrossAttention, FastCrossAttention, FastMLP)
rely_on(MLP, "forward", "__call__")  # called where it is not fast
rely_on(Attention, "split_heads")
rely_on(CrossAttention, "normalise")


def associates(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> bool:
    """Whether a call of a block is one that this file's algebra holds for, apart from the number of heads."""
    attention = block.attention
    if not is_plain_inference(queries, inputs) or drops(block, attention):
        return False
    return _reads_past(block) and are_alike(inputs, *_parameters(block)) and _fits(queries, inputs, mask)


def may_be_bracketed(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> bool:
    """Whether the algebra holds, and `associated` may follow it, apart from the number of heads."""
    return (
        _reads_past(block)
        and is_bracketed_freely(queries, inputs, *_parameters(block))
        and not drops(block.attention)
        and all(type(x.shape[1]) is int for x in (queries, inputs))  # a program for any number compares none
        and _fits(queries, inputs, mask)
    )


def _reads_past(block: CrossAttention) -> bool:
    return is_untouched(block.attention, *_layers(block)) and not block.attention.causal


def _layers(block: CrossAttention) -> tuple[Any, ...]:
    attention = block.attention
    projections = (attention.query, attention.key, attention.value, attention.output)
    return block.query_norm, block.input_norm, *projections


def _parameters(block: CrossAttention) -> list[Tensor | None]:
    return [parameter for layer in _layers(block) for parameter in (layer.weight, layer.bias)]


def _fits(queries: Tensor, inputs: Tensor, mask: Tensor | None) -> bool:
    batch = inputs.shape[0]
    fits = queries.shape[0] in (1, batch)
    if mask is not None:
        fits = fits and mask.dtype == torch.bool and mask.ndim == 3 and mask.shape[0] in (1, batch)
        fits = fits and mask.shape[1] in (1, queries.shape[1]) and mask.shape[2] in (1, inputs.shape[1])
    return fits


def drop_unattended(
    inputs: Float[Tensor, "#batch inputs channels"], mask: Bool[Tensor, "#batch #queries #inputs"] | None
) -> tuple[Float[Tensor, "#batch kept channels"], Bool[Tensor, "#batch #queries #kept"] | None]:
    """Drops the inputs that no query of any example may attend to, and a mask that then forbids nothing.

    On a CPU only: elsewhere, looking at a mask's values stops the device.
    """
    if mask is None or mask.is_meta or choice.kind_of(mask) != "cpu" or mask.shape[-1] != inputs.shape[1]:
        return inputs, mask
    attended = mask.flatten(0, 1).any(0)
    if not attended.any():
        return inputs, mask
    inputs, mask = inputs[:, attended], mask[:, :, attended]
    return inputs, None if mask.all() else mask


def gathers_cheaply(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> bool:
    """Whether `gather` serves and multiplies less than the plain order: few queries, many inputs."""
    attention = block.attention
    (num_queries, _), (num_inputs, channels) = queries.shape[-2:], inputs.shape[-2:]
    if not _gathers(block, inputs, mask):
        return False
    widths = attention.key.out_features + attention.value.out_features
    associated = num_queries * channels * (2 * num_inputs + widths)
    return associated <= num_inputs * (num_queries + channels) * widths


def gathers_in_blocks(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> bool:
    """Whether `gather` serves that projects, and the scores, as a whole, would not fit in a CPU's cache."""
    if not _gathers(block, inputs, mask):
        return False
    return input_blocks.serves(queries, inputs) and input_blocks.has_blocks(queries, inputs)


def _gather(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
    """What the attention yields, or None where its own way is as good."""
    if gathers_cheaply(block, queries, inputs, mask):
        return associated.gather(block, queries, inputs, mask)
    if gathers_in_blocks(block, queries, inputs, mask):
        return associated.gather(block, queries, inputs, mask, projects=True)
    return None


def _gathers(block: CrossAttention, inputs: Tensor, mask: Tensor | None) -> bool:
    return block.attention.num_heads == 1 and (mask is None or mask.shape[1:] == (1, inputs.shape[1]))


def looks_up_cheaply(
    block: CrossAttention, queries: Tensor, latents: Tensor, mask: Tensor | None, num_shared_channels: int = 0
) -> bool:
    """Whether `look_up` serves and multiplies less than the plain order: many queries, few latents."""
    attention = block.attention
    num_queries, num_latents = queries.shape[-2], latents.shape[-2]
    if attention.num_heads != 1 or (mask is not None and mask.shape[1:] != (num_queries, 1)):
        return False
    channels, widths = block.query_norm.normalized_shape[0], attention.key.out_features + attention.value.out_features
    associated = num_latents * (num_queries * (2 * channels - num_shared_channels) + channels * widths)
    return associated <= num_queries * (channels + num_latents) * widths


def look_up(
    block: CrossAttention,
    queries: Float[Tensor, "#batch queries own_channels"],
    latents: Float[Tensor, "batch latents latent_channels"],
    mask: Bool[Tensor, "#batch queries 1"] | None = None,
    padding: Float[Tensor, "shared_channels"] | None = None,
    readout: AffineMap | None = None,
) -> Float[Tensor, "batch queries out_channels"]:
    """Maps many queries and few latents to what `block` and then `readout` yield, a block of queries at a time.

    Args:
        padding: trailing channels that all queries share; they meet the keys once.
        readout: linear map of the block's output to what is wanted of it; None for all of it.
    """
    if mask is not None:
        latents = unattended_as_zeros(latents, mask)
    numel_per_query = latents.shape[1] + 3 * block.query_norm.normalized_shape[0]
    results = []
    for rows, seen, masks in _examples(queries, latents, mask):
        decode = _LookUp(block, seen, padding, readout)
        blocks = row_blocks(rows.shape[1], len(seen) * numel_per_query, rows)
        results.append(
            torch.cat([decode(rows[:, part], None if masks is None else masks[:, part]) for part in blocks], dim=1)
        )
    return torch.cat(results)


class _LookUp:
    """Queries attending to latents, with the MLP and linear layers that follow.

    What depends on the latents alone is computed once, by the constructor.
    """

    def __init__(
        self, block: CrossAttention, latents: Tensor, padding: Tensor | None, readout: AffineMap | None
    ) -> None:
        attention, norm = block.attention, block.query_norm
        normed = block.input_norm(latents)
        key = apply_linear(attention.key, normed) * attention.key.out_features**-0.5
        self.block = block
        self.padding = padding
        key_rows = product(key, attention.query.weight.T)  # [B, N, C]: Wq goes to the keys
        score_bias = key_rows @ norm.bias
        if attention.query.bias is not None:
            score_bias = score_bias + key @ attention.query.bias
        self.score_bias: Tensor | None = score_bias.unsqueeze(1)
        key_rows = key_rows * norm.weight
        if padding is not None:
            # Shared channels of a normalised row are (padding - mean) / deviation: two columns, for both terms.
            own, shared = key_rows.split([key_rows.shape[2] - len(padding), len(padding)], dim=2)
            key_rows = torch.cat([own, (shared @ padding).unsqueeze(2), -key_rows.sum(2, keepdim=True)], dim=2)
        if alignment.is_wanted(latents):
            key_rows, self.score_bias = alignment.with_biases(key_rows, self.score_bias), None
        self.key_rows = key_rows
        # Wo goes to the values, and its bias, since weights add up to 1.
        value_rows = product(apply_linear(attention.value, normed), attention.output.weight, attention.output.bias)
        value_rows = lengthened(value_rows, key_rows.shape[1] - value_rows.shape[1], dim=1)
        self.channels = value_rows.shape[2]
        self.more = missing(self.channels, value_rows)  # zeros, after the channels
        # [B, C, N] as the second factor of a product.
        self.value_columns = lengthened(value_rows, self.more).transpose(1, 2).contiguous()
        self.of_nothing = lengthened(attention.output.bias, self.more) if attention.output.bias is not None else None
        self.readout = None if readout is None else readout.aligned()
        self.outputs = None if readout is None else len(readout.weight)
        self.hidden_readout: AffineMap | None = None
        self.hidden: AffineMap | None = None
        if readout is not None and _composes(block, readout):
            # The MLP's second layer and the readout compose into one small matrix.
            composed = readout.after(AffineMap(block.mlp.output.weight, block.mlp.output.bias))
            self.hidden_readout = composed.aligned()
            self.hidden = _aligned_hidden(block.mlp, latents)

    def __call__(
        self, queries: Float[Tensor, "#batch queries own_channels"], mask: Bool[Tensor, "#batch queries 1"] | None
    ) -> Float[Tensor, "batch queries out_channels"]:
        """Decodes a block of queries."""
        block = self.block
        rows = self._normalised(queries)
        if self.score_bias is None:
            rows = alignment.with_ones(rows, self.key_rows.shape[2])
        x = batched_product(batched_product(rows, self.key_rows, self.score_bias).softmax(-1), self.value_columns)
        if mask is not None:
            x = torch.where(mask, x, x.new_zeros(()) if self.of_nothing is None else self.of_nothing)
        if block.use_query_residual:
            x = x + lengthened(pad(queries, self.padding), self.more)
        channels = x[..., : self.channels]
        normed = block.mlp_norm(channels)
        if self.readout is None:
            return channels + block.mlp(normed)
        if self.hidden_readout is None:
            outputs = self.readout(lengthened(channels + block.mlp(normed), self.more))
        else:
            outputs = product(x, self.readout.weight) + self.hidden_readout(self._activated(normed))
        return outputs[..., : self.outputs]

    def _activated(self, normed: Tensor) -> Tensor:
        """The MLP's hidden layer after its activation, with zeros after its channels where rows are aligned."""
        if self.hidden is not None:
            return product(lengthened(normed, self.more), self.hidden.weight, self.hidden.bias, "gelu")
        hidden = activated(self.block.mlp, normed)
        return lengthened(hidden, missing(hidden.shape[-1], hidden))

    def _normalised(self, queries: Tensor) -> Tensor:
        """Rows that meet `key_rows`: normalised queries, the padding's share of these in two columns."""
        norm = self.block.query_norm
        if self.padding is None:
            return F.layer_norm(queries, norm.normalized_shape, eps=norm.eps)
        # In float32 at least, as layer norm does: squares and sums of half precision overflow.
        precision = torch.promote_types(queries.dtype, torch.float32)
        own_rows, padding = queries.to(precision), self.padding.to(precision)
        channels = queries.shape[-1] + len(padding)
        mean = (own_rows.sum(-1, keepdim=True) + padding.sum()) / channels
        own = (own_rows - mean).square().sum(-1, keepdim=True)
        # Once around the padding's own mean, rather than once per row around the row's.
        centre = padding.mean()
        shared = (padding - centre).square().sum() + len(padding) * (centre - mean).square()
        scale = ((own + shared) / channels + norm.eps).rsqrt()
        return torch.cat([own_rows * scale, scale, mean * scale], dim=-1).to(queries.dtype)


def _aligned_hidden(mlp: MLP, like: Tensor) -> AffineMap | None:
    """The first layer of an MLP with aligned features, where what is zero before it and its activation stays so."""
    hidden = mlp.hidden
    serves = mlp.activation == "gelu_tanh" and is_untouched(hidden) and are_alike(like, hidden.weight, hidden.bias)
    return AffineMap(hidden.weight, hidden.bias).aligned() if serves and alignment.is_wanted(like) else None


def _composes(block: CrossAttention, readout: AffineMap) -> bool:
    """Whether the MLP's second layer may be composed with a readout, and that is less work than one after the other."""
    mlp = block.mlp
    return (
        isinstance(mlp, FastMLP)
        and is_untouched(mlp, mlp.output)
        and not drops(mlp)
        and are_alike(readout.weight, readout.bias, mlp.output.weight, mlp.output.bias)
        and len(readout.weight) <= mlp.output.in_features
    )


def pad(rows: Float[Tensor, "*batch own_channels"], padding: Tensor | None) -> Float[Tensor, "*batch channels"]:
    """Appends shared channels to all rows."""
    if padding is None:
        return rows
    return torch.cat([rows, padding.expand(*rows.shape[:-1], -1)], dim=-1)


def _examples(queries: Tensor, inputs: Tensor, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Cuts a batch into what is worked through at a time: single examples on a CPU, all of them elsewhere."""
    if choice.kind_of(inputs) == "cuda":
        yield queries, inputs, mask
        return
    for i in range(len(inputs)):
        yield (
            queries[i % len(queries)][None],
            inputs[i][None],
            None if mask is None else mask[i % len(mask)][None],
        )
