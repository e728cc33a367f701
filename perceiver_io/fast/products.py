"""Attention as two batched products with a softmax between them, in bounded memory, with gradients.

For one wide head, which torch's fused kernels do worst on GPUs, and for keys and values of the user's choosing: the
inputs themselves, say, that `cross_attention` meets with queries and keys bracketed otherwise. Where the scores would
pass a bound, examples, then queries are worked through in pieces; in compiled programs by an operator that compilers do
not look into, where all scores at once would pass it, or their number varies. A query's scores are whole, so that each
piece's softmax is exact. Of so many inputs that a piece has few queries, which would read all inputs again, a GPU goes
through the inputs in blocks instead (`online_softmax`). The backward pass computes the scores again rather than keep
them, and no gradient that nobody asks for: of pixels, say.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver_io.fast import choice
from perceiver_io.fast.gate import is_exporting
from perceiver_io.fast.linear import batched_product
from perceiver_io.fast.online_softmax import OnlineSoftmax, score_unit

# Of the scores that exist at a time; their softmax takes as much again.
MAX_SCORE_BYTES = 2 * 2**30
# The same where scores are to stay in a CPU's cache.
CACHED_SCORE_BYTES = 4 * 2**20
# The backward pass holds four such matrices, and meets more pieces at little cost.
_BACKWARD_SHARE = 4
# Values of a block of rows and of what is computed from them that fit in a CPU's cache.
_BLOCK_NUMEL = {"cpu": 2**23}
# Fewer queries at a time take longer to read the inputs than to multiply by them.
_FEWEST_QUERIES = 256


def attend_by_products(
    query: Float[Tensor, "#batch queries qk_channels"],
    key: Float[Tensor, "#batch inputs qk_channels"],
    value: Float[Tensor, "#batch inputs v_channels"] | None = None,
    score_bias: Float[Tensor, "#batch 1 inputs"] | None = None,
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
    max_score_bytes: int = MAX_SCORE_BYTES,
) -> Float[Tensor, "batch queries v_channels"]:
    """Maps queries, already scaled, to the values that they attend to; heads are examples of the batch.

    Args:
        value: None for the keys themselves.
        score_bias: what is added to all scores of an input.
        mask: True where a query may attend to an input. Queries without any valid input yield exact zeros.
        max_score_bytes: size of the scores that exist at a time.
    """
    (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1])
    query, key = _autocast(query).expand(batch, -1, -1), _autocast(key).expand(batch, -1, -1)
    value, score_bias = (None if x is None else _autocast(x).expand(batch, -1, -1) for x in (value, score_bias))
    attends = None
    if mask is not None:
        attends = mask.any(-1, keepdim=True)
        mask = (mask | ~attends).expand(batch, -1, key.shape[1])  # a row of nothing is no softmax: all, and is wiped
    with nullcontext() if query.is_meta else torch.autocast(query.device.type, enabled=False):
        if torch.compiler.is_compiling() and _is_cut_later(query, key, max_score_bytes):
            attended: Tensor = _cut_later(query, key, value, score_bias, mask, max_score_bytes)
        elif torch.is_grad_enabled():
            attended = _Recomputed.apply(query, key, value, score_bias, mask, max_score_bytes)  # type: ignore[no-untyped-call]
        else:
            attended = _in_pieces(query, key, value, score_bias, mask, max_score_bytes)
    return attended if attends is None else attended.masked_fill(~attends, 0.0)


def attend_heads_by_products(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
    max_score_bytes: int = MAX_SCORE_BYTES,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Attends as `perceiver_io.attention.attend` does."""
    (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1])
    heads = query.shape[1]
    rows, keys, values = (
        x.expand(batch, -1, -1, -1).flatten(0, 1) for x in (query * key.shape[-1] ** -0.5, key, value)
    )
    if mask is not None and mask.shape[0] != 1:
        mask = mask.repeat_interleave(heads, 0)
    attended = attend_by_products(rows, keys, values, mask=mask, max_score_bytes=max_score_bytes)
    return attended.unflatten(0, (batch, heads))


def _autocast(x: Tensor) -> Tensor:
    if x.is_meta or x.dtype == torch.float64 or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


def _in_pieces(
    query: Tensor, key: Tensor, value: Tensor | None, score_bias: Tensor | None, mask: Tensor | None, max_bytes: int
) -> Tensor:
    value = key if value is None else value
    pieces = list(_pieces(query, key, max_bytes))
    first = pieces[0][1]
    if choice.kind_of(query) == "cuda" and first.stop is not None and first.stop < min(query.shape[1], _FEWEST_QUERIES):
        return _in_blocks(query, key, value, score_bias, mask, max_bytes)
    if len(pieces) == 1:
        return batched_product(_weights(query, key, score_bias, mask), value.transpose(1, 2))
    attended = query.new_empty(*query.shape[:2], value.shape[-1])
    for some, rows in pieces:
        weights = _weights(*_cut(some, rows, query, key, score_bias, mask))
        attended[some, rows] = batched_product(weights, value[some].transpose(1, 2))
    return attended


def _in_blocks(
    query: Tensor, key: Tensor, value: Tensor, score_bias: Tensor | None, mask: Tensor | None, max_bytes: int
) -> Tensor:
    """All queries with a block of inputs at a time."""
    attended, unit = OnlineSoftmax(query, value.shape[-1]), score_unit(query.dtype)
    query = query * unit
    score_bias = None if score_bias is None else score_bias * unit
    step = max(1, max_bytes // (4 * query.shape[0] * query.shape[1]))  # their exponentials are in float32
    for first in range(0, key.shape[1], step):
        part = slice(first, first + step)
        scores = batched_product(query, key[:, part], None if score_bias is None else score_bias[:, :, part])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, part], -torch.inf)
        attended.add(batched_product(attended.weights(scores), value[:, part].transpose(1, 2)))
    return attended.result()


class _Recomputed(torch.autograd.Function):
    """`_in_pieces` that keeps its arguments alone, and computes the scores anew for the gradients.

    Where these are differentiated or mapped over in turn, all scores are there at once.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        query, key, value, score_bias, mask, max_bytes = arguments
        ctx.save_for_backward(query, key, value, score_bias, mask)
        ctx.max_bytes = max_bytes
        return _in_pieces(*arguments)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, score_bias, mask = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or is_mapped_over(gradient)):
            return *_gradients(query, key, value, score_bias, mask, gradient, needed), None, None
        return *_gradients_in_pieces(query, key, value, score_bias, mask, ctx.max_bytes, gradient, needed), None, None


def _gradients_in_pieces(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    score_bias: Tensor | None,
    mask: Tensor | None,
    max_bytes: int,
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    values = key if value is None else value
    of_query, of_key, of_value, of_bias = (
        torch.zeros_like(x) if is_wanted and x is not None else None
        for x, is_wanted in zip((query, key, value, score_bias), needed, strict=True)
    )
    for some, rows in _pieces(query, key, max_bytes // _BACKWARD_SHARE):
        part = _cut(some, rows, query, key, score_bias, mask)
        weights, outer = _weights(*part), gradient[some, rows]
        if of_value is not None:
            of_value[some] += weights.transpose(1, 2) @ outer
        if of_key is not None and value is None:
            of_key[some] += weights.transpose(1, 2) @ outer
        of_weights = batched_product(outer, values[some])
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        if of_query is not None:
            of_query[some, rows] = batched_product(of_scores, part[1].transpose(1, 2))
        if of_key is not None:
            of_key[some] += of_scores.transpose(1, 2) @ part[0]
        if of_bias is not None:
            of_bias[some] += of_scores.sum(1, keepdim=True)
    return [of_query, of_key, of_value, of_bias]


def _is_cut_later(query: Tensor, key: Tensor, max_bytes: int) -> bool:
    """Whether a compiled program has to decide in how many pieces it works when it runs."""
    sizes = (*query.shape[:2], key.shape[1])
    if is_exporting():  # what reads the program knows no operators of this library
        return False
    return not all(type(size) is int for size in sizes) or math.prod(sizes) * query.element_size() > max_bytes


_ARGUMENTS = "Tensor query, Tensor key, Tensor? value, Tensor? score_bias, Tensor? mask, int max_bytes"
_LIBRARY = "perceiver_io"


@torch.library.custom_op(f"{_LIBRARY}::attend_by_products", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _cut_later(
    query: Tensor, key: Tensor, value: Tensor | None, score_bias: Tensor | None, mask: Tensor | None, max_bytes: int
) -> Tensor:
    """`_in_pieces` as one operation, which compilers call as it is."""
    return _in_pieces(query, key, value, score_bias, mask, max_bytes)


@_cut_later.register_fake
def _shape_of_attended(query: Tensor, key: Tensor, value: Tensor | None, *_: Any) -> Tensor:
    return query.new_empty(*query.shape[:2], (key if value is None else value).shape[-1])


@torch.library.custom_op(
    f"{_LIBRARY}::gradients_of_products",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor gradient, bool[] needed) -> Tensor[]",
)
def _cut_backwards(*arguments: Any) -> list[Tensor]:
    """The gradients that are needed, in the order of the tensors."""
    return [x for x in _gradients_in_pieces(*arguments) if x is not None]


@_cut_backwards.register_fake
def _shapes_of_gradients(*arguments: Any) -> list[Tensor]:
    needed = arguments[-1]
    return [torch.empty_like(x) for x, is_wanted in zip(arguments[:4], needed, strict=True) if is_wanted]


def _keep_for_gradients(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.max_bytes = inputs[5]


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:4])
    found = iter(_cut_backwards(*ctx.saved_tensors, ctx.max_bytes, gradient, needed))
    return *(next(found) if is_wanted else None for is_wanted in needed), None, None


_cut_later.register_autograd(_differentiate, setup_context=_keep_for_gradients)


def is_mapped_over(gradient: Tensor) -> bool:
    """Whether `vmap`, or `autograd.grad` of a batch of gradients, is at work."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient)


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    score_bias: Tensor | None,
    mask: Tensor | None,
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients in operations that have gradients and rules for `vmap` themselves."""
    scores = query @ key.transpose(1, 2)
    if score_bias is not None:
        scores = scores + score_bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    of_values = weights.transpose(1, 2) @ gradient
    of_weights = gradient @ (key if value is None else value).transpose(1, 2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
    of_key = of_scores.transpose(1, 2) @ query
    gradients = (
        of_scores @ key,
        of_key + of_values if value is None else of_key,
        None if value is None else of_values,
        None if score_bias is None else of_scores.sum(1, keepdim=True),
    )
    return [one if is_wanted else None for one, is_wanted in zip(gradients, needed, strict=True)]


def _weights(query: Tensor, key: Tensor, score_bias: Tensor | None, mask: Tensor | None) -> Tensor:
    scores = batched_product(query, key, score_bias)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)


def _pieces(query: Tensor, key: Tensor, max_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Examples, and queries of these, whose scores have at most so many bytes."""
    if torch.compiler.is_compiling():  # asking for sizes would make a program for these alone
        yield slice(None), slice(None)
        return
    (batch, rows, _), inputs = query.shape, key.shape[1]
    row_bytes = inputs * query.element_size()
    # A CPU works on several examples at a time only where their scores stay in its cache.
    bytes_of_examples = min(max_bytes, CACHED_SCORE_BYTES) if choice.kind_of(query) == "cpu" else max_bytes
    examples = max(1, min(batch, bytes_of_examples // max(1, rows * row_bytes)))
    step = max(1, min(rows, max_bytes // max(1, row_bytes)))
    for first in range(0, batch, examples):
        for row in range(0, rows, step):
            yield slice(first, first + examples), slice(row, row + step)


def _cut(
    some: slice, rows: slice, query: Tensor, key: Tensor, score_bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Arguments of `_weights` for a piece."""
    if mask is not None:
        mask = mask[some] if mask.shape[1] == 1 else mask[some, rows]
    return query[some, rows], key[some], None if score_bias is None else score_bias[some], mask


def row_blocks(rows: int, numel_per_row: int, like: Tensor) -> list[slice]:
    """Consecutive pieces of rows whose intermediate values are of bounded size."""
    numel = _BLOCK_NUMEL.get(choice.kind_of(like), MAX_SCORE_BYTES // like.element_size())
    size = max(256, numel // numel_per_row)
    return [slice(start, start + size) for start in range(0, rows, size)]
