"""Attention by products, and its gradients, for so many examples and queries at a time that scores stay in a bound.

A query's scores are whole, so that each piece's softmax is exact. Of so many inputs that a piece has few queries, which
would read all inputs again, a GPU goes through the inputs in blocks instead (`online_softmax`). The gradients compute
the scores again, and nothing that nobody asks for: of pixels, say.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver_io.fast import alignment, choice
from perceiver_io.fast.alignment import lengthened, missing
from perceiver_io.fast.linear import batched_product
from perceiver_io.fast.online_softmax import OnlineSoftmax, score_unit

# Of the scores that exist at a time; their softmax takes as much again.
MAX_SCORE_BYTES = 2 * 2**30
# The same where scores are to stay in a CPU's cache.
_CACHED_SCORE_BYTES = 4 * 2**20
# The backward pass holds four such matrices, and meets more pieces at little cost.
_BACKWARD_SHARE = 4
# Of a block of rows and of what is computed from them, so that they fit in a CPU's cache.
_BLOCK_BYTES = {"cpu": 2**24}
# Fewer queries at a time take longer to read the inputs than to multiply by them.
_FEWEST_QUERIES = 256


class _Operands(NamedTuple):
    """What attention by products is given; see `attend_by_products`."""

    query: Tensor
    key: Tensor
    value: Tensor | None
    score_bias: Tensor | None
    mask: Tensor | None

    @property
    def values(self) -> Tensor:
        """The keys, if there are no values of their own."""
        return self.key if self.value is None else self.value

    def aligned(self) -> "_Operands":
        """The same attention by rows of an `alignment`, with channels and inputs after the given ones."""
        query, key, value, score_bias, mask = self
        if not alignment.is_wanted(query):
            return self
        more_inputs, more_channels = (missing(size, query) for size in key.shape[1:])
        if score_bias is not None or (more_inputs and mask is None):
            key = alignment.with_biases(key, score_bias)
            query = alignment.with_ones(query, key.shape[2])
        else:
            query = lengthened(query, more_channels)
            key = lengthened(lengthened(key, more_inputs, dim=1), more_channels)
        if value is not None:
            value = lengthened(lengthened(value, more_inputs, dim=1), missing(value.shape[2], value))
        return _Operands(query, key, value, None, None if mask is None else lengthened(mask, more_inputs))


def attend_in_pieces(
    query: Tensor, key: Tensor, value: Tensor | None, score_bias: Tensor | None, mask: Tensor | None, max_bytes: int
) -> Tensor:
    """Maps queries [batch, queries, channels], already scaled, to what they attend to; see `attend_by_products`."""
    given = _Operands(query, key, value, score_bias, mask)
    return _attend(given.aligned(), max_bytes)[..., : given.values.shape[-1]].contiguous()


def _attend(operands: _Operands, max_bytes: int) -> Tensor:
    query, key, _, score_bias, mask = operands
    value = operands.values
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
    most = max_bytes // (4 * query.shape[0] * query.shape[1])  # their exponentials are in float32
    step = max(1, most - alignment.surplus(most, query))
    for first in range(0, key.shape[1], step):
        part = slice(first, first + step)
        scores = batched_product(query, key[:, part], None if score_bias is None else score_bias[:, :, part])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, :, part], -torch.inf)
        attended.add(batched_product(attended.weights(scores), value[:, part].transpose(1, 2)))
    return attended.result()


def gradients_in_pieces(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    score_bias: Tensor | None,
    mask: Tensor | None,
    max_bytes: int,
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of query, key, value and bias that are needed, and None for others."""
    given = _Operands(query, key, value, score_bias, mask)
    aligned = given.aligned()
    outer = lengthened(gradient, aligned.values.shape[2] - gradient.shape[2])
    is_channel = score_bias is not None and aligned.score_bias is None  # the biases are, of the keys
    of_key_too = needed[1] or (is_channel and needed[3])
    found = _gradients(aligned, max_bytes, outer, (needed[0], of_key_too, *needed[2:]))
    if is_channel and found[1] is not None:
        found[3] = found[1][:, :, key.shape[2]].unsqueeze(1)
    # Of what was given, and not of what an alignment added.
    return [
        None if not is_wanted or x is None or of_x is None else of_x[tuple(map(slice, x.shape))].contiguous()
        for x, of_x, is_wanted in zip(given[:4], found, needed, strict=True)
    ]


def _gradients(operands: _Operands, max_bytes: int, gradient: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    query, key, value, score_bias, mask = operands
    values = operands.values
    of_query, of_key, of_value, of_bias = (
        torch.zeros_like(x, memory_format=torch.contiguous_format) if is_wanted and x is not None else None
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
    bytes_of_examples = min(max_bytes, _CACHED_SCORE_BYTES) if choice.kind_of(query) == "cpu" else max_bytes
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
    most_bytes = _BLOCK_BYTES.get(choice.kind_of(like), MAX_SCORE_BYTES)
    size = max(256, most_bytes // (like.element_size() * max(1, numel_per_row)))
    return [slice(start, start + size) for start in range(0, rows, size)]
