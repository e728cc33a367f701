"""Few queries of a single head that attend to many inputs, a block of inputs at a time, on CPUs, with gradients.

Keys and values are the normalised inputs themselves, or linear maps of these. They exist for a block at a time, as
scores do, which then stay in the cache. For the gradients all of them are computed again: what is kept is queries,
inputs as they came, results, and a number for each query.
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
from perceiver_io.fast.products import is_mapped_over, row_blocks

# Values of each score that are at hand: the score, its weight, and what the inputs' own rows add.
_NUMEL_PER_SCORE = 8
# The backward pass has twice as many scores, and what it adds to in between.
_BACKWARD_NUMEL_PER_SCORE = 32
# Channels of a key up to which scores, written to the same memory block by block, cost less than new memory for each.
_NARROW = 64
# Scores whose exponentials, and sums of as many as there may be, are far from the ends of float32 and bfloat16.
_SAFE_SCORE = 40


def serves(inputs: Tensor) -> bool:
    """Whether inputs may be attended to in blocks: on a CPU, in their own precision, and no compiler looks on."""
    if torch.compiler.is_compiling() or choice.kind_of(inputs) != "cpu":
        return False
    return inputs.is_meta or not torch.is_autocast_enabled("cpu")


def has_blocks(queries: Tensor, inputs: Tensor) -> bool:
    """Whether the scores, as a whole, would not fit in a CPU's cache."""
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
        if torch.is_grad_enabled() or is_mapped_over(gradient):
            return *_plain_gradients(query, inputs, weight, mask, ctx.eps, gradient, needed), None, None
        precision = logs.dtype
        of_query, of_inputs, of_weight = (
            torch.zeros_like(x, dtype=precision) if wanted else None
            for x, wanted in zip((query, inputs, weight), needed, strict=True)
        )
        gradient = gradient.contiguous()
        inner = (gradient.to(precision) * means).sum(-1, keepdim=True)  # the softmax's own part in all scores of a row
        blocks = _blocks(query, inputs, _BACKWARD_NUMEL_PER_SCORE)
        scaled = query * score_unit(query.dtype)
        buffers = [_buffer(query, inputs, blocks) for _ in range(2)]
        for example in range(len(inputs)):
            rows, outer = query[example], gradient[example]
            for part in blocks:
                seen = inputs[example, part]
                normed, mean, scale = torch.native_layer_norm(seen, seen.shape[-1:], None, None, ctx.eps)
                keys, values = _keys_and_values(normed, weight, rows.shape[-1])
                weights = _scores(scaled[example], keys, buffers[0]).to(precision)
                if mask is not None:
                    weights = weights.masked_fill_(~mask[example, :, part], -torch.inf)
                weights = exponentiate(weights.sub_(logs[example]), query.dtype)
                of_scores = _scores(outer, values, buffers[1]).to(precision).sub_(inner[example]).mul_(weights)
                weights, of_scores = weights.to(query.dtype), of_scores.to(query.dtype)
                if of_query is not None:
                    of_query[example] += of_scores @ keys
                if of_weight is None and of_inputs is None:
                    continue
                if weight is None:
                    of_normed = of_scores.T @ rows + weights.T @ outer
                else:
                    columns = torch.cat([rows.T @ of_scores, outer.T @ weights])
                    if of_weight is not None:
                        of_weight += columns @ normed
                    of_normed = columns.T @ weight if of_inputs is not None else None
                if of_inputs is not None:
                    of_inputs[example, part] = torch.ops.aten.native_layer_norm_backward(
                        of_normed, seen, seen.shape[-1:], mean, scale, None, None, [True, False, False]
                    )[0]
        return *(None if x is None else x.to(query.dtype) for x in (of_query, of_inputs, of_weight)), None, None


def _plain_gradients(
    query: Tensor,
    inputs: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    eps: float,
    gradient: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients in operations that have gradients and rules for `vmap` themselves, all scores at once."""
    with torch.enable_grad():
        normed = F.layer_norm(inputs, inputs.shape[-1:], eps=eps)
        keys, values = _keys_and_values(normed, weight, query.shape[-1])
        scores = query @ keys.mT
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        means = scores.softmax(-1) @ values
        given = zip((query, inputs, weight), needed, strict=True)
        wanted = [x for x, is_wanted in given if is_wanted and x is not None]
        found = iter(torch.autograd.grad(means, wanted, gradient, create_graph=True))
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
