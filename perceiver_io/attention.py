"""Attention and the two residual blocks that Perceiver IO is made of (paper, section 3.1 and supplement E).

Shapes: `queries` attend to `inputs` (keys and values come from these), and each query yields one row.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from perceiver_io.initializers import variance_scaling_

Activation = Literal["gelu_tanh", "gelu", "relu", "squared_relu", "geglu"]
# Projected queries and keys, split into heads, to the same turned by their positions (`autoregressive.rotary`).
Rotations = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# New keys and values to all that are kept, these included (`autoregressive.cache`).
Cache = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def attend(
    query: Float[Tensor, "#batch heads queries qk_channels"],
    key: Float[Tensor, "#batch heads inputs qk_channels"],
    value: Float[Tensor, "#batch heads inputs v_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
    dropout_prob: float = 0.0,
    causal: bool = False,
) -> Float[Tensor, "batch heads queries v_channels"]:
    """Maps queries, keys and values to the attention-weighted values of each query, head by head.

    Scores are scaled by 1/sqrt(qk_channels). Source: the reference's `attend`.

    Args:
        mask: True where a query may attend to an input. Queries without any valid input yield exact zeros.
        dropout_prob: probability of dropping an attention weight.
        causal: whether queries, which stand for the last of the inputs, attend to none after their own.
    """
    (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1])
    query, key, value = (_stored(x.expand(batch, -1, -1, -1)) for x in (query, key, value))
    if causal and query.shape[-2] > 1:  # the last input's own query attends to all
        order = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device)
        order = order.tril(key.shape[-2] - query.shape[-2])
        mask = order[None] if mask is None else mask & order
    if mask is None:
        with _forward_derivatives():
            return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_prob)
    rows = -1 if _takes_repeated_rows(mask.device) else query.shape[-2]
    mask = mask.expand(-1, rows, key.shape[-2]).unsqueeze(1).contiguous()  # the same for all heads
    attends = mask.any(-1, keepdim=True)
    # A row of nothing but masked scores is no softmax: it gets all inputs, and is wiped.
    with _forward_derivatives():
        attended = F.scaled_dot_product_attention(query, key, value, mask | ~attends, dropout_prob)
    return attended.masked_fill(~attends, 0.0)


def _stored(x: Tensor) -> Tensor:
    """Has each value stored: kernels of GPUs take nothing that is repeated along an axis, nor channels apart."""
    is_stored = x.stride(-1) == 1 and all(stride or size == 1 for stride, size in zip(x.stride(), x.shape, strict=True))
    return x if is_stored else x.contiguous()


def _takes_repeated_rows(device: torch.device) -> bool:
    """Whether a mask may be one row for all queries, as kernels of GPUs do not have it."""
    return device.type in ("cpu", "meta")


def _forward_derivatives() -> AbstractContextManager[None]:
    """Has attention computed step by step for forward-mode derivatives, which fused kernels have none of."""
    return sdpa_kernel(SDPBackend.MATH) if forward_ad._current_level >= 0 else nullcontext()


class Attention(nn.Module):
    """Maps queries and inputs to one output row per query by multi-head attention.

    Source: the reference's `Attention`; its defaults for the widths hold here too.

    Args:
        query_channels: channels of the queries.
        input_channels: channels of the inputs that keys and values are computed from.
        num_heads: number of heads; divides `qk_channels` and `v_channels`.
        qk_channels: width of queries and keys over all heads; default `query_channels`.
        v_channels: width of the values over all heads; default `qk_channels`.
        output_channels: width of the result; default `v_channels`.
        qkv_bias: whether the projections to queries, keys and values have biases.
        output_bias: whether the last projection has one.
        dropout_prob: probability of dropping an attention weight while training.
        causal: whether queries, which stand for the last of the inputs, attend to none after their own.

    Raises:
        ValueError: if the number of heads does not divide a width.
    """

    def __init__(
        self,
        query_channels: int,
        input_channels: int,
        *,
        num_heads: int = 8,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        output_channels: int | None = None,
        qkv_bias: bool = True,
        output_bias: bool = True,
        dropout_prob: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        qk_channels = query_channels if qk_channels is None else qk_channels
        v_channels = qk_channels if v_channels is None else v_channels
        output_channels = v_channels if output_channels is None else output_channels
        for name, channels in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if num_heads < 1 or channels % num_heads:
                raise ValueError(
                    f"num_heads ({num_heads}) must divide {name} ({channels}); "
                    f"choose another number of heads or set {name} to a multiple of it"
                )
        self.num_heads = num_heads
        self.dropout_prob = dropout_prob
        self.causal = causal
        self.query = nn.Linear(query_channels, qk_channels, bias=qkv_bias)
        self.key = nn.Linear(input_channels, qk_channels, bias=qkv_bias)
        self.value = nn.Linear(input_channels, v_channels, bias=qkv_bias)
        self.output = nn.Linear(v_channels, output_channels, bias=output_bias)
        for layer in (self.query, self.key, self.value, self.output):
            _initialise(layer)

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch queries output_channels"]:
        """Attends; a batch of one on either side stands for all examples.

        Args:
            mask: as in `attend`; with a cache, of all inputs that it holds.
            rotations: turn queries and keys by their positions.
            cache: keeps keys and values, and adds those of earlier inputs.
        """
        query, key, value = map(self.split_heads, (self.query(queries), self.key(inputs), self.value(inputs)))
        if rotations is not None:
            query, key = rotations(query, key)
        if cache is not None:
            key, value = cache(key, value)
        attended = attend(query, key, value, mask, self.dropout_prob if self.training else 0.0, self.causal)
        return self.output(rearrange(attended, "batch heads rows channels -> batch rows (heads channels)"))

    def split_heads(
        self, rows: Float[Tensor, "batch rows channels"]
    ) -> Float[Tensor, "batch heads rows head_channels"]:
        """Splits projected rows into those of each head."""
        return rearrange(rows, "batch rows (heads channels) -> batch heads rows channels", heads=self.num_heads)


class MLP(nn.Module):
    """Maps each row to a row of the same width through one wider hidden layer.

    QUIRK: the reference's GELU is its tanh approximation, `jax.nn.gelu`'s default (exact GELU differs by up to 4.7e-4).
    Source: the reference's `MLP`.

    Args:
        channels: width of the rows.
        widening_factor: hidden width as a multiple of `channels`.
        activation: of the hidden layer: "gelu_tanh" (the reference's), "gelu" (exact), "relu", "squared_relu"
            (Perceiver AR's) or "geglu", where the first half of a hidden layer of twice the width is multiplied by the
            exact GELU of the second (Shazeer, "GLU Variants Improve Transformer", 2020).
        bias: whether the two layers have biases.
        dropout_prob: probability of dropping an output value while training.

    Raises:
        ValueError: for another activation.
    """

    def __init__(
        self,
        channels: int,
        *,
        widening_factor: int = 4,
        activation: Activation = "gelu_tanh",
        bias: bool = True,
        dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation ({activation!r}) must be one of {', '.join(map(repr, _ACTIVATIONS))}")
        self.activation = activation
        self.dropout_prob = dropout_prob
        hidden_channels = widening_factor * channels
        self.hidden = nn.Linear(channels, hidden_channels * (2 if activation == "geglu" else 1), bias=bias)
        self.output = nn.Linear(hidden_channels, channels, bias=bias)
        _initialise(self.hidden)
        _initialise(self.output)

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Applies the two layers row by row."""
        x = self.output(activate(self.hidden(x), self.activation))
        return F.dropout(x, self.dropout_prob, self.training)


class SelfAttention(nn.Module):
    """Maps rows to rows of the same shape: pre-norm attention among them, then a pre-norm MLP, both residual.

    Source: the reference's `SelfAttention`.

    Args:
        channels: width of the rows.
        num_heads: heads of the attention.
        qk_channels: width of queries and keys over all heads; default `channels`.
        v_channels: width of the values over all heads; default `qk_channels`.
        widening_factor: hidden width of the MLP as a multiple of `channels`.
        activation: of the MLP, as there.
        qkv_bias: whether the projections to queries, keys and values have biases.
        output_bias: whether the attention's last projection has one.
        mlp_bias: whether the MLP's layers have biases.
        dropout_prob: dropout of the attention's and of the MLP's output.
        attention_dropout_prob: dropout of the attention weights.
        causal: see `Attention`.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 4,
        activation: Activation = "gelu_tanh",
        qkv_bias: bool = True,
        output_bias: bool = True,
        mlp_bias: bool = True,
        dropout_prob: float = 0.0,
        attention_dropout_prob: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.dropout_prob = dropout_prob
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = Attention(
            channels,
            channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=v_channels,
            output_channels=channels,
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            dropout_prob=attention_dropout_prob,
            causal=causal,
        )
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = MLP(
            channels,
            widening_factor=widening_factor,
            activation=activation,
            bias=mlp_bias,
            dropout_prob=dropout_prob,
        )

    def forward(
        self,
        x: Float[Tensor, "batch rows channels"],
        mask: Bool[Tensor, "#batch #rows #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch rows channels"]:
        """Applies the block; `mask` is True where a row may attend to another. The rest is as in `Attention`."""
        normed = self.attention_norm(x)
        attended = self.attention(normed, normed, mask, rotations, cache)
        x = x + F.dropout(attended, self.dropout_prob, self.training)
        return x + self.mlp(self.mlp_norm(x))


class CrossAttention(nn.Module):
    """Maps queries and inputs to one row per query, of the query's width: attention, then an MLP, both pre-norm.

    Source: the reference's `CrossAttention`.

    Args:
        query_channels: channels of the queries and of the result.
        input_channels: channels of the inputs.
        num_heads: heads of the attention.
        shape_for_attn: whose width queries and keys take when `qk_channels` is not given: the query's ("q") or the
            inputs' ("kv").
        qk_channels: width of queries and keys over all heads.
        v_channels: width of the values over all heads; default as `qk_channels`.
        widening_factor: hidden width of the MLP as a multiple of `query_channels`.
        use_query_residual: whether the queries are added to the attention's output. Leave out where the meaning of
            query and output differ, for instance when queries are positions and outputs are pixels.
        activation: of the MLP, as there.
        qkv_bias: whether the projections to queries, keys and values have biases.
        output_bias: whether the attention's last projection has one.
        mlp_bias: whether the MLP's layers have biases.
        dropout_prob: dropout of the attention's and of the MLP's output.
        attention_dropout_prob: dropout of the attention weights.
        causal: see `Attention`.

    Raises:
        ValueError: for another `shape_for_attn`.
    """

    def __init__(
        self,
        query_channels: int,
        input_channels: int,
        *,
        num_heads: int = 8,
        shape_for_attn: Literal["q", "kv"] = "kv",
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 1,
        use_query_residual: bool = True,
        activation: Activation = "gelu_tanh",
        qkv_bias: bool = True,
        output_bias: bool = True,
        mlp_bias: bool = True,
        dropout_prob: float = 0.0,
        attention_dropout_prob: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if shape_for_attn not in ("q", "kv"):
            raise ValueError(
                f"shape_for_attn ({shape_for_attn!r}) must be 'q' or 'kv': whose width queries and keys take"
            )
        if qk_channels is None:
            qk_channels = query_channels if shape_for_attn == "q" else input_channels
        self.use_query_residual = use_query_residual
        self.dropout_prob = dropout_prob
        self.query_norm = nn.LayerNorm(query_channels)
        self.input_norm = nn.LayerNorm(input_channels)
        self.attention = Attention(
            query_channels,
            input_channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=v_channels,
            output_channels=query_channels,
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            dropout_prob=attention_dropout_prob,
            causal=causal,
        )
        self.mlp_norm = nn.LayerNorm(query_channels)
        self.mlp = MLP(
            query_channels,
            widening_factor=widening_factor,
            activation=activation,
            bias=mlp_bias,
            dropout_prob=dropout_prob,
        )

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch queries query_channels"]:
        """Applies the block; a batch of one on either side stands for all examples. Arguments as in `Attention`."""
        if mask is not None and cache is None:
            inputs = unattended_as_zeros(inputs, mask)
        x = self.attention(*self.normalise(queries, inputs), mask, rotations, cache)
        x = F.dropout(x, self.dropout_prob, self.training)
        if self.use_query_residual:
            x = queries + x
        return x + self.mlp(self.mlp_norm(x))

    def normalise(self, queries: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the norms before the attention."""
        return self.query_norm(queries), self.input_norm(inputs)


def unattended_as_zeros(
    inputs: Float[Tensor, "#batch inputs channels"], mask: Bool[Tensor, "#batch #queries #inputs"]
) -> Float[Tensor, "batch inputs channels"]:
    """Replaces inputs that no query may attend to by zeros: else NaN in them had influence, as 0 · NaN is NaN."""
    return inputs.masked_fill(~mask.any(1).unsqueeze(-1), 0.0)


def activate(hidden: Float[Tensor, "*batch hidden"], activation: Activation) -> Float[Tensor, "*batch activated"]:
    """Applies an activation of `MLP`, which "geglu" halves the width by."""
    return _ACTIVATIONS[activation](hidden)


def _geglu(hidden: Tensor) -> Tensor:
    values, gates = hidden.chunk(2, dim=-1)
    return values * F.gelu(gates)


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "squared_relu": lambda hidden: F.relu(hidden).square(),
    "geglu": _geglu,
}
assert tuple(_ACTIVATIONS) == get_args(Activation)


def _initialise(layer: nn.Linear) -> None:
    """Initialises a layer of attention or of an MLP as the reference's `conv_1d` is."""
    variance_scaling_(layer.weight, fan_in=layer.in_features)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
