"""Few queries of a single head that attend to many inputs, a block of inputs at a time, on CPUs, with gradients.

Keys and values are the normalised inputs themselves, or linear maps of these. They exist for a block at a time, as
scores do, which then stay in the cache. For the gradients all of them are computed again: beside what it is given, a
training step keeps the results and a number for each query.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from perceiver_io.fast import choice
from perceiver_io.fast.linear import product
from perceiver_io.fast.online_softmax import OnlineSoftmax, exponentiate, score_unit
from perceiver_io.fast.pieces import row_blocks
from perceiver_io.fast.products import attend_by_products, is_mapped_over, not_autocast

# Values of each score that are at hand: the score, its weight, and what the inputs' own rows add.
_NUMEL_PER_SCORE = 8
# The backward pass has twice as many scores, and what it adds to in between.
_BACKWARD_NUMEL_PER_SCORE = 32
# Channels of a key up to which scores, written to the same memory block by block, cost less than new memory for each.
_NARROW = 64
# Scores whose exponentials, and sums of as many as there may be, are far from the ends of float32 and bfloat16.
_SAFE_SCORE = 40


def serves(queries: Tensor, inputs: Tensor) -> bool:
    """Whether inputs may be attended to in blocks, and that is no slower: examples are gone through one by one.

    On CPUs, in the inputs' own precision, where no compiler looks on. Gradients are for full precision, since in half
    precision the scores of blocks would be rounded.
    """
    if torch.compiler.is_compiling() or choice.kind_of(inputs) != "cpu":
        return False
    if not inputs.is_meta and torch.is_autocast_enabled("cpu"):
        return False
    if torch.is_grad_enabled():
        return inputs.dtype in (torch.float32, torch.float64) and has_blocks(queries, inputs)
    return len(inputs) == 1 or has_blocks(queries, inputs)


def has_blocks(queries: Tensor, inputs: Tensor) -> bool:
    """Whether the scores of an example, as a whole, would not fit in a CPU's cache."""
    return len(_blocks(queries, inputs, _NUMEL_PER_SCORE)) > 1


def attend_to_inputs(
    query: Float[Tensor, "#batch queries qk_channels"],
    inputs: Float[Tensor, "batch inputs channels"],
    weight: Float[Tensor, "widths channels"] | None,
    mask: Bool[Tensor, "#batch 1 inputs"] | None,
    eps: float,
) -> Float[Tensor, "batch queries v_channels"]:
    """Maps queries, already scaled, to the means of the values that they attend to.

    Args:
        inputs: before their layer norm, which has no scale and shift of its own here.
        weight: what maps normalised inputs to keys and, below these, values; None: they are both.
        mask: True where an input may be attended to; where none may, the result is any number.
        eps: of the layer norm.
    """
    query = query.expand(len(inputs), -1, -1)
    if mask is not None:
        mask = (mask | ~mask.any(-1, keepdim=True)).expand(len(inputs), -1, -1)
    if torch.is_grad_enabled():
        attended: Tensor = _Recomputed.apply(query, inputs, weight, mask, eps)  # type: ignore[no-untyped-call]
        return attended
    return _attend(query, inputs, weight, mask, eps)[0]


def _attend(
    query: Tensor, inputs: Tensor, weight: Tensor | None, mask: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """The means, and the logarithms [batch, queries, 1] of the sums of exponentials in the scores' unit."""
    qk_channels = query.shape[-1]
    width = inputs.shape[-1] if weight is None else len(weight) - qk_channels
    blocks = _blocks(query, inputs, _NUMEL_PER_SCORE)
    is_bounded, buffer = weight is None and _are_scores_safe(query, inputs), _buffer(query, inputs, blocks)
    query = query * score_unit(query.dtype)
    means, logs = [], []
    for example in range(len(inputs)):
        rows = query[example]
        softmax = OnlineSoftmax(rows[None], width, is_bounded)
        for part in blocks:
            normed = F.layer_norm(inputs[example, part], inputs.shape[-1:], eps=eps)
            keys = normed if weight is None else product(normed, weight[:qk_channels])
            scores = _scores(rows, keys, buffer)
            if mask is not None:
                scores = scores.masked_fill_(~mask[example, :, part], -torch.inf)
            columns = normed.T.contiguous() if weight is None else product(weight[qk_channels:], normed)
            softmax.add(product(softmax.weights(scores[None]), columns))
        means.append(softmax.result())
        logs.append(softmax.log_total())
    return torch.cat(means), torch.cat(logs)


class _Recomputed(torch.autograd.Function):
    """`_attend` with gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        query, inputs, weight, mask, eps = arguments
        means, logs = _attend(*arguments)
        ctx.save_for_backward(query, inputs, weight, mask, means, logs)
        ctx.eps = eps
        return means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, inputs, weight, mask, means, logs = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        with not_autocast(gradient):
            if torch.is_grad_enabled() or is_mapped_over(gradient):
                found = _plain_gradients(query, inputs, weight, mask, ctx.eps, gradient, needed)
            else:
                found = _gradients(query, inputs, weight, mask, means, logs, ctx.eps, gradient, needed)
        return *found, None, None


def _gradients(
    query: Tensor,
    inputs: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    means: Tensor,
    logs: Tensor,
    eps: float,
    gradient: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients of query, inputs and weight that are needed, and None for others, a block at a time."""
    of_query, of_inputs, of_weight = (
        torch.zeros_like(x, memory_format=torch.contiguous_format) if is_wanted and x is not None else None
        for x, is_wanted in zip((query, inputs, weight), needed, strict=True)
    )
    gradient, scaled = gradient.contiguous(), query * score_unit(query.dtype)
    inner = (gradient * means).sum(-1, keepdim=True)  # the softmax's own part in all scores of a row
    blocks = _blocks(query, inputs, _BACKWARD_NUMEL_PER_SCORE)
    buffers = [_buffer(query, inputs, blocks) for _ in range(2)]
    for example in range(len(inputs)):
        rows, outer = query[example], gradient[example]
        for part in blocks:
            seen = inputs[example, part]
            normed, mean, scale = torch.native_layer_norm(seen, seen.shape[-1:], None, None, eps)
            keys, values = _keys_and_values(normed, weight, rows.shape[-1])
            weights = _scores(scaled[example], keys, buffers[0])
            if mask is not None:
                weights = weights.masked_fill_(~mask[example, :, part], -torch.inf)
            weights = exponentiate(weights.sub_(logs[example]), query.dtype)
            of_scores = _scores(outer, values, buffers[1]).sub_(inner[example]).mul_(weights)
            if of_query is not None:
                of_query[example] += of_scores @ keys
            if of_weight is not None:
                columns = torch.cat([rows.T @ of_scores, outer.T @ weights])
                of_weight += columns @ normed
            if of_inputs is not None:
                if weight is None:
                    of_normed = of_scores.T @ rows + weights.T @ outer
                else:
                    of_normed = torch.cat([of_scores.T @ rows, weights.T @ outer], dim=-1) @ weight
                of_inputs[example, part] = torch.ops.aten.native_layer_norm_backward(
                    of_normed, seen, seen.shape[-1:], mean, scale, None, None, [True, False, False]
                )[0]
    return [of_query, of_inputs, of_weight]


def _plain_gradients(
    query: Tensor,
    inputs: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    eps: float,
    gradient: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The same in operations that have gradients and rules for `vmap` themselves."""
    with torch.enable_grad():
        # Aliases: queries may depend on inputs, which is for those to differentiate who made them so.
        aliases = [None if x is None else x.view_as(x) for x in (query, inputs, weight)]
        rows, seen, projection = aliases
        assert rows is not None and seen is not None
        normed = F.layer_norm(seen, seen.shape[-1:], eps=eps)
        keys, values = _keys_and_values(normed, projection, rows.shape[-1])
        attended = attend_by_products(rows, keys, values, mask=mask)
        wanted = [x for x, is_wanted in zip(aliases, needed, strict=True) if is_wanted and x is not None]
        found = iter(torch.autograd.grad(attended, wanted, gradient, create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in needed]


def _keys_and_values(normed: Tensor, weight: Tensor | None, qk_channels: int) -> tuple[Tensor, Tensor]:
    if weight is None:
        return normed, normed
    both = product(normed, weight)
    return both[..., :qk_channels], both[..., qk_channels:]


def _blocks(query: Tensor, inputs: Tensor, numel_per_score: int) -> list[slice]:
    return row_blocks(inputs.shape[1], numel_per_score * query.shape[1], query)


def _buffer(query: Tensor, inputs: Tensor, blocks: list[slice]) -> Tensor:
    """For the scores of one block after the other; memory that nobody writes to costs nothing."""
    return query.new_empty(query.shape[1] * min(blocks[0].stop, inputs.shape[1]))


def _scores(query: Tensor, keys: Tensor, buffer: Tensor) -> Tensor:
    if query.shape[-1] > _NARROW or query.dtype not in (torch.float32, torch.float64):
        return product(query, keys)
    shape = len(query), len(keys)
    return torch.mm(query, keys.T, out=buffer[: math.prod(shape)].view(shape))


def _are_scores_safe(query: Tensor, inputs: Tensor) -> bool:
    """Whether the lengths of queries and of keys, which are normalised inputs, bound all scores."""
    if query.dtype == torch.float16 or query.is_meta or isinstance(query, FakeTensor):
        return False
    return bool(query.norm(dim=-1).max() * inputs.shape[-1] ** 0.5 < _SAFE_SCORE)
