"""Attention in blocks, so that scores stay in a CPU's cache where they can, for inference.

Two products with exponentials between, for some heads and queries at a time, each block in the memory of the last one.
Scores are in bits, and their powers of two are summed as they are: looking for the largest score of each row first, as
softmax does, takes as long again. Only where a sum comes near the ends of the numbers' range are a block's scores
computed again, and the largest subtracted. In bfloat16, keys and values of the heads are stored in full first: of
strided ones, as heads are that lie side by side in a row, oneDNN makes copies of its own for each product.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# Queries at a time: fewer take longer to read the inputs, more do not make the products faster.
_QUERIES = 256
# Scores of several heads at a time, which stay in the cache.
_SCORES = 2**20
# Scores of a single head, which has fewer queries at a time where its inputs are so many.
_MOST_SCORES = 2**24


def attend_in_blocks(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Attends as `perceiver_io.attention.attend` does; nothing may be empty.

    In half precision scores are rounded before their softmax, as in any attention by two products.
    """
    (batch,) = torch.broadcast_shapes(*(x.shape[:1] for x in (query, key, mask) if x is not None))
    heads, inputs = key.shape[1:3]
    query = query * (key.shape[-1] ** -0.5 / math.log(2))
    query, key, value = (x.expand(batch, -1, -1, -1).flatten(0, 1) for x in (query, key, value))
    attended = query.new_empty(*query.shape[:2], value.shape[-1])
    forbidden = None if mask is None else _Forbidden(mask, heads)
    num_heads, num_queries = _block(query.shape[0], query.shape[1], inputs)
    memory = query.new_empty(num_heads * num_queries * inputs)
    has_large_scores = False
    for some in _parts(len(query), num_heads):
        keys, values = key[some], value[some]
        if query.dtype == torch.bfloat16:
            keys, values = keys.contiguous(), values.contiguous()
        for rows in _parts(query.shape[1], num_queries):
            queries = query[some, rows]
            size = (queries.shape[0], queries.shape[1], inputs)
            weights = memory[: math.prod(size)].view(size)
            hidden = None if forbidden is None else forbidden.of(some, rows)
            total = None if has_large_scores else _exponentiate(_scores(queries, keys, hidden, weights))
            if total is None or not _is_in_range(total):
                has_large_scores = True  # in the blocks to come as well, most likely
                scores = _scores(queries, keys, hidden, weights)
                total = _exponentiate(scores.sub_(scores.amax(-1, keepdim=True)))
            attended[some, rows] = torch.bmm(weights, values).div_(total)
    attended = attended.unflatten(0, (batch, heads))
    return attended if forbidden is None else attended.masked_fill_(forbidden.everywhere, 0.0)


def _scores(queries: Tensor, keys: Tensor, forbidden: Tensor | None, memory: Tensor) -> Tensor:
    torch.bmm(queries, keys.mT, out=memory)
    return memory if forbidden is None else memory.masked_fill_(forbidden, -torch.inf)


def _exponentiate(scores: Tensor) -> Tensor:
    """Writes powers of two over the scores, and returns their sums."""
    return scores.exp2_().sum(-1, keepdim=True)


def _is_in_range(total: Tensor) -> bool:
    """Whether no exponential overflowed, and those that vanished are nothing beside their row's sum."""
    if total.is_meta or isinstance(total, FakeTensor):
        return True
    largest = torch.finfo(total.dtype).max ** 0.5
    return bool((total.amax() < largest) & (total.amin() > 1 / largest))


class _Forbidden:
    """Where a mask forbids attention, for blocks of heads and queries.

    Args:
        mask: True where a query may attend to an input.
        heads: of each example.

    Attributes:
        everywhere: which queries may attend to nothing; `of` lets them attend to all, for softmax to have a value.
    """

    def __init__(self, mask: Bool[Tensor, "#batch #queries #inputs"], heads: int) -> None:
        attends = mask.any(-1, keepdim=True)
        self.everywhere = ~attends[:, None]
        self._where, self._heads = ~mask & attends, heads

    def of(self, some: slice, rows: slice) -> Bool[Tensor, "#some #rows #inputs"]:
        """The part for some heads of the batch, and some queries."""
        where = self._where if self._where.shape[1] == 1 else self._where[:, rows]
        if len(where) == 1:
            return where
        numbers = torch.arange(some.start, min(some.stop, len(where) * self._heads), device=where.device)
        return where[numbers // self._heads]


def _block(heads: int, queries: int, inputs: int) -> tuple[int, int]:
    """Numbers of heads and of queries in a block; blocks are as equal as they can be."""
    queries = _equal(queries, min(_QUERIES, _MOST_SCORES // inputs))
    return _equal(heads, _SCORES // (queries * inputs)), queries


def _equal(number: int, most: int) -> int:
    """The size of the parts where a number has as few as possible, none of them above `most`."""
    num_parts = math.ceil(number / max(1, most))
    return math.ceil(number / num_parts)


def _parts(number: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, number, size)]
