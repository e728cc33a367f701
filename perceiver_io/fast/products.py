"""Attention as two batched products with a softmax between them, in bounded memory, with gradients.

For one wide head, which torch's fused kernels do worst on GPUs, and for keys and values of the user's choosing: the
inputs themselves, say, that `cross_attention` meets with queries and keys bracketed otherwise. Where the scores would
pass a bound, examples, then queries are worked through in `pieces`; in compiled programs by an operator that compilers
do not look into, and that has no second derivatives. The backward pass computes the scores again rather than keep them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver_io.fast.pieces import MAX_SCORE_BYTES, attend_in_pieces, gradients_in_pieces


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
    with not_autocast(query):
        if _is_compiled():
            attended: Tensor = _attend(query, key, value, score_bias, mask, max_score_bytes)
        elif torch.is_grad_enabled():
            attended = _Recomputed.apply(query, key, value, score_bias, mask, max_score_bytes)  # type: ignore[no-untyped-call]
        else:
            attended = attend_in_pieces(query, key, value, score_bias, mask, max_score_bytes)
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


def not_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Keeps products to the precision of their operands."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


class _Recomputed(torch.autograd.Function):
    """`attend_in_pieces` that keeps its arguments alone, and computes the scores anew for the gradients.

    Where these are differentiated or mapped over in turn, all scores are there at once.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        query, key, value, score_bias, mask, max_bytes = arguments
        ctx.save_for_backward(query, key, value, score_bias, mask)
        ctx.max_bytes = max_bytes
        return attend_in_pieces(*arguments)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, score_bias, mask = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        with not_autocast(gradient):
            if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or is_mapped_over(gradient)):
                return *_gradients(query, key, value, score_bias, mask, gradient, needed), None, None
            found = gradients_in_pieces(query, key, value, score_bias, mask, ctx.max_bytes, gradient, needed)
            return *found, None, None


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


def _is_compiled() -> bool:
    """Whether a compiler looks on, and no exporter, whose readers know no operators of this library.

    PyTorch 2.6 and before do not tell the two apart.
    """
    is_exporting = getattr(torch.compiler, "is_exporting", lambda: True)
    return torch.compiler.is_compiling() and not is_exporting()


_ARGUMENTS = "Tensor query, Tensor key, Tensor? value, Tensor? score_bias, Tensor? mask, int max_bytes"


@torch.library.custom_op("perceiver_io::attend_by_products", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _attend(*arguments: Any) -> Tensor:
    """`attend_in_pieces` as one operation, which compilers call as it is."""
    return attend_in_pieces(*arguments)


@_attend.register_fake
def _shape_of_attended(query: Tensor, key: Tensor, value: Tensor | None, *_: Any) -> Tensor:
    return query.new_empty(*query.shape[:2], (key if value is None else value).shape[-1])


@torch.library.custom_op(
    "perceiver_io::gradients_of_products",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor gradient, bool[] needed) -> Tensor[]",
)
def _differentiate(*arguments: Any) -> list[Tensor]:
    """Those of `gradients_in_pieces` that are needed."""
    return [x for x in gradients_in_pieces(*arguments) if x is not None]


@_differentiate.register_fake
def _shapes_of_gradients(*arguments: Any) -> list[Tensor]:
    wanted = [x for x, is_wanted in zip(arguments[:4], arguments[-1], strict=True) if is_wanted]
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in wanted]


def _keep_arguments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.max_bytes = inputs[5]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:4])
    found = iter(_differentiate(*ctx.saved_tensors, ctx.max_bytes, gradient, needed))
    return *(next(found) if is_wanted else None for is_wanted in needed), None, None


_attend.register_autograd(_backward, setup_context=_keep_arguments)
