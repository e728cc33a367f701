"""One step of generation on a CPU as one run of products.

A step multiplies single rows: reading the weights takes most of its time, and what modules do around their products
most of the rest. Here the layers of a `PerceiverAR` are gone through with their weights at hand, which `Plan` looks up
once for a cache and looks after at every step. A single row in float32 is multiplied by weights as they are
(`linear.row_product`). Several, and rows in bfloat16, meet copies that oneDNN has arranged for itself: half the time,
for as much memory again as the weights take. A change of the weights is seen by their versions; one that evades these,
through `.data` or by a fused optimiser, counts when the cache is filled anew. The formulas are those of
`perceiver_io.attention`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.attention import MLP, Activation, Attention, CrossAttention, Rotations, SelfAttention
from perceiver_io.autoregressive.blocks import OwnNormCrossAttention
from perceiver_io.autoregressive.cache import Cache
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.fast.gate import are_alike, drops, is_plain_inference, is_untouched, trust
from perceiver_io.fast.graphs import GraphedCall
from perceiver_io.fast.linear import apply_linear, in_halves, product
from perceiver_io.fast.recorded_steps import recorded_steps

trust(SelfAttention, OwnNormCrossAttention)

# The part of an MLP that oneDNN applies with the first product: its name and variant.
_FUSED: dict[Activation, tuple[str, str]] = {
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "relu": ("relu", ""),
    "squared_relu": ("relu", ""),
}
# What else a step depends on.
_SETTINGS = ("activation", "eps", "num_heads", "use_query_residual")


class FastPerceiverAR(GraphedCall, PerceiverAR):
    """`PerceiverAR` whose steps of one token go through the layers in one run."""

    def next_logits(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        num_latents: int | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Maps tokens to the logits of what comes next."""
        steps = recorded_steps(self, tokens, num_latents, mask, cache)
        if steps is not None:
            return steps(tokens, positions)
        return PerceiverAR.next_logits(self, tokens, positions, num_latents, mask=mask, cache=cache)

    def _attend(
        self,
        latents: Tensor,
        inputs: Tensor,
        mask: tuple[Tensor | None, Tensor | None],
        rotations: tuple[Rotations | None, Rotations | None],
        cache: Cache | None,
    ) -> Tensor:
        """Runs the layers."""
        is_step = latents.shape[1] == inputs.shape[1] == 1 and isinstance(self, FastPerceiverAR)
        if cache is None or not is_step or latents.device.type != "cpu" or torch.compiler.is_compiling():
            return PerceiverAR._attend(self, latents, inputs, mask, rotations, cache)
        plan = cache.prepared
        if not isinstance(plan, Plan) or not plan.holds(self, latents):
            plan = cache.prepared = make_plan(self, latents, cache)
        if plan is None or not is_plain_inference(latents, inputs):
            return PerceiverAR._attend(self, latents, inputs, mask, rotations, cache)
        return plan.run(latents, inputs, mask, rotations)

    def _output(self, latents: Tensor) -> Tensor:
        """Maps rows to logits."""
        if not isinstance(self, FastPerceiverAR) or not is_plain_inference(latents):
            return PerceiverAR._output(self, latents)
        if self.output is not None:
            return apply_linear(self.output, latents)
        return product(latents, self.embedding.weight, self.output_bias if self.config.output_bias else None)


class _Linear(NamedTuple):
    """A linear layer, then an activation or the addition of a residual."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, residual: Tensor | None = None, activation: tuple[str, str] | None = None) -> Tensor:
        return _activated(_sum(F.linear(x, self.weight, self.bias), residual), activation)


class _RowLinear(NamedTuple):
    """The same for a single row [1, 1, width], as `linear.row_product`, with all views made once.

    They are views of the memory, not of the parameter, which PyTorch could then not swap for another.
    """

    halves: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, residual: Tensor | None = None, activation: tuple[str, str] | None = None) -> Tensor:
        parts, rows, width = self.halves.shape
        # The column that `row_product` makes, in one operation.
        column = x.as_strided((parts, width, 1), (0, 1, width))
        added = self.bias if residual is None else _sum(residual.view(parts, rows, 1), self.bias)
        product = torch.bmm(self.halves, column) if added is None else torch.baddbmm(added, self.halves, column)
        return _activated(product.view(1, 1, -1), activation)


def _row_linear(layer: nn.Linear) -> _RowLinear:
    halves = in_halves(layer.weight.data)
    return _RowLinear(halves, None if layer.bias is None else layer.bias.data.view(*halves.shape[:2], 1))


class _PackedLinear(_Linear):
    """The same with a weight that oneDNN has arranged."""

    def __call__(self, x: Tensor, residual: Tensor | None = None, activation: tuple[str, str] | None = None) -> Tensor:
        # By the overloads' own names: to find the right one, torch prints the arguments of those that do not fit.
        if residual is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        name, variant = ("none", "") if activation is None else activation
        return torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, name, [], variant)


_AnyLinear = _Linear | _RowLinear


def _sum(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x + y


def _activated(x: Tensor, activation: tuple[str, str] | None) -> Tensor:
    if activation is None:
        return x
    name, variant = activation
    return F.gelu(x, approximate=variant) if name == "gelu" else F.relu(x)


class _Norm(NamedTuple):
    shape: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Block:
    """A cross-attention (of kind 0) or a self-attention (of kind 1), as its weights."""

    kind: int
    query_norm: _Norm
    input_norm: _Norm | None  # None: inputs are the queries
    query: _AnyLinear
    key: _AnyLinear
    value: _AnyLinear
    output: _AnyLinear
    heads: int
    has_residual: bool
    is_rotary: bool
    mlp_norm: _Norm
    hidden: _AnyLinear
    activation: tuple[str, str]
    squares: bool
    mlp_output: _AnyLinear
    keep: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Plan:
    """The layers of a model in the order of a step.

    Args:
        model: whose layers they are.
        blocks: these.
        modules: all modules that are read past.
    """

    def __init__(self, model: PerceiverAR, blocks: list[_Block], modules: list[nn.Module], dtype: torch.dtype) -> None:
        self.model, self.blocks, self.modules, self.dtype = model, blocks, modules, dtype
        owners = (model, model.self_attends, model.further_cross_attends)
        # All that the layers consist of, by where it is looked up.
        places: list[tuple[Any, str]] = [
            (module._parameters, name) for module in modules for name in module._parameters
        ]
        places += [(module._modules, name) for module in (*owners, *modules) for name in module._modules]
        places += [(vars(module), name) for module in modules for name in _SETTINGS if name in vars(module)]
        self.tables, self.names = [table for table, _ in places], [name for _, name in places]
        self.found = [table[name] for table, name in places]
        self.dropping = [module for module in modules if getattr(module, "dropout_prob", 0)]
        self.weights = [found for found in self.found if isinstance(found, Tensor)]
        self.written = self._written()

    def holds(self, model: PerceiverAR, latents: Tensor) -> bool:
        """Whether the layers are still those of the model, with nothing attached to them."""
        return (
            self.model is model
            and latents.dtype == self.dtype
            and all(map(is_, map(dict.get, self.tables, self.names), self.found))
            and self.written == self._written()
            and not any(module.training for module in self.dropping)
            and is_untouched(*self.modules)
        )

    def _written(self) -> list[Any]:
        """Where the weights lie, and how often they have been written to."""
        versions = [0 if weight.is_inference() else weight._version for weight in self.weights]
        return [*map(Tensor.data_ptr, self.weights), *map(Tensor.stride, self.weights), *versions]

    def run(
        self,
        latents: Tensor,
        inputs: Tensor,
        mask: tuple[Tensor | None, Tensor | None],
        rotations: tuple[Rotations | None, Rotations | None],
    ) -> Tensor:
        """Goes through the layers with one row of each sequence."""
        masks = tuple(None if part is None else part[:, None] for part in mask)
        x, batch = latents, len(latents)
        for block in self.blocks:
            queries = block.query_norm(x)
            keys = queries if block.input_norm is None else block.input_norm(inputs)
            query = block.query(queries).view(batch, block.heads, 1, -1)
            key = block.key(keys).view(batch, block.heads, 1, -1)
            value = block.value(keys).view(batch, block.heads, 1, -1)
            if block.is_rotary and (turn := rotations[block.kind]) is not None:
                query, key = turn(query, key)
            key, value = block.keep(key, value)
            # The new row is no padding, and attends to itself at least.
            attended = _attend(query, key, value, masks[block.kind]).view(batch, 1, -1)
            x = block.output(attended, x if block.has_residual else None)
            hidden = block.hidden(block.mlp_norm(x), None, block.activation)
            x = block.mlp_output(hidden.square_() if block.squares else hidden, x)
        return x


def make_plan(model: PerceiverAR, latents: Tensor, cache: Cache) -> Plan | None:
    """Looks up the layers of a model for the steps with a cache; None if a step is not what they alone compute."""
    config = model.config
    if config.leaks_padding or config.activation not in _FUSED:
        return None
    linear = _kind_of_linear(latents, model)
    of_inputs, of_latents = iter(cache.cross_attends), iter(cache.self_attends)
    blocks, modules = [], []
    for kind, index, block in _order(model):
        found = list(block.modules())
        attached = is_untouched(*found) and not drops(*(m for m in found if isinstance(m, _DROPPING)))
        weights = [p for module in found for p in module._parameters.values() if p is not None]
        if not attached or not are_alike(latents, *weights) or not all(weight.is_contiguous() for weight in weights):
            return None
        modules += found
        keep: Any = next(of_latents if kind else of_inputs)
        blocks.append(_as_block(kind, index, block, config.num_rotary_self_attends, keep, linear))
    return Plan(model, blocks, modules, latents.dtype)


_DROPPING = (MLP, Attention, SelfAttention, CrossAttention)


def _order(model: PerceiverAR) -> list[tuple[int, int, Any]]:
    order: list[tuple[int, int, Any]] = [] if model.cross_attend is None else [(0, 0, model.cross_attend)]
    for index, block in enumerate(model.self_attends):
        order.append((1, index, block))
        if str(index) in model.further_cross_attends:
            order.append((0, index, model.further_cross_attends[str(index)]))
    return order


def _as_block(kind: int, index: int, block: Any, num_rotary: int | None, keep: Any, linear: Any) -> _Block:
    def norm(layer: nn.LayerNorm) -> _Norm:
        return _Norm(layer.normalized_shape, layer.weight, layer.bias, layer.eps)

    shares_norm = kind == 1 or isinstance(block, OwnNormCrossAttention)
    return _Block(
        kind=kind,
        query_norm=norm(block.attention_norm if kind else block.query_norm),
        input_norm=None if shares_norm else norm(block.input_norm),
        query=linear(block.attention.query),
        key=linear(block.attention.key),
        value=linear(block.attention.value),
        output=linear(block.attention.output),
        heads=block.attention.num_heads,
        has_residual=bool(kind) or block.use_query_residual,
        is_rotary=not kind or num_rotary is None or index < num_rotary,
        mlp_norm=norm(block.mlp_norm),
        hidden=linear(block.mlp.hidden),
        activation=_FUSED[block.mlp.activation],
        squares=block.mlp.activation == "squared_relu",
        mlp_output=linear(block.mlp.output),
        keep=keep,
    )


def _kind_of_linear(latents: Tensor, model: nn.Module) -> Callable[[nn.Linear], _AnyLinear]:
    """How the layers of a model multiply such latents the fastest."""
    has_onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if latents.dtype == torch.float32 and len(latents) == 1:
        return _row_linear
    is_served = latents.dtype == torch.float32 or (
        latents.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    # Nobody can see inference tensors change, which copies must not miss.
    if not has_onednn or not is_served or any(parameter.is_inference() for parameter in model.parameters()):
        return lambda layer: _Linear(layer.weight, layer.bias)
    pack = torch.ops.mkldnn._reorder_linear_weight
    return lambda layer: _PackedLinear(pack(layer.weight.detach(), len(latents)), layer.bias)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attends with one query of each head, which attends to something."""
    if query.dtype == torch.float32:
        return _attend_by_products(query, key, value, mask)
    if len(query) == 1:
        return F.scaled_dot_product_attention(query, key, value, mask)
    # Such products copy keys and values that lie apart, as those of several sequences do: of one at a time, that is
    # memory which is at hand.
    masks: Sequence[Tensor | None] = [None] * len(query) if mask is None else mask.split(1)
    rows = zip(query.split(1), key.split(1), value.split(1), masks, strict=True)
    return torch.cat([_attend_by_products(*row) for row in rows])


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    batch, heads, _, channels = query.shape
    column = (query * channels**-0.5).view(batch * heads, 1, channels).transpose(1, 2)
    scores = torch.bmm(key.flatten(0, 1), column).view(batch, heads, 1, -1)
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf)
    weighted = torch.bmm(scores.softmax(-1).view(batch * heads, 1, -1), value.flatten(0, 1))
    return weighted.view(batch, heads, 1, -1)
