"""Attention and the two residual blocks that Perceiver IO is made of (paper, section 3.1 and supplement E).

This is the plain formulation. Shapes: `queries` attend to `inputs` (keys and values come from these). Where a faster
way to the same result serves, it is taken: `linear` for products, `kernels` for fused attention, `association` for the
order of products.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.association import drop_unattended, gather, gathers_cheaply, look_up, looks_up_cheaply
from perceiver_io.initializers import variance_scaling_
from perceiver_io.kernels import fused_attend
from perceiver_io.linear import Linear


def attention_weights(
    query: Float[Tensor, "*#batch heads queries qk_channels"],
    key: Float[Tensor, "*#batch heads inputs qk_channels"],
    mask: Bool[Tensor, "*#batch #queries #inputs"] | None = None,
) -> Float[Tensor, "*batch heads queries inputs"]:
    """Maps queries and keys to how much of its attention each query pays to each input, head by head.

    Scores are scaled by 1/sqrt(qk_channels).

    Args:
        mask: True where a query may attend to an input. Masked scores become -1e30 (-1e4 in float16) rather than
            -inf, so that a row without any valid input stays finite; such rows are then wiped to exact zeros.
    """
    # Scaled here rather than as scores, which are usually more numbers.
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    mask = mask.unsqueeze(-3)  # the same for all heads
    scores = scores.masked_fill(~mask, -1e4 if scores.dtype == torch.float16 else -1e30)
    return scores.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0.0)


def attend(
    query: Float[Tensor, "*#batch heads queries qk_channels"],
    key: Float[Tensor, "*#batch heads inputs qk_channels"],
    value: Float[Tensor, "*#batch heads inputs v_channels"],
    mask: Bool[Tensor, "*#batch #queries #inputs"] | None = None,
    dropout_prob: float = 0.0,
) -> Float[Tensor, "*batch heads queries v_channels"]:
    """Maps queries, keys and values to the attention-weighted values of each query, head by head.

    Source: the reference's `attend`.

    Args:
        mask: as in `attention_weights`; queries without any valid input yield exact zeros.
        dropout_prob: probability of dropping an attention weight.
    """
    return F.dropout(attention_weights(query, key, mask), dropout_prob) @ value


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
        output_bias: whether the last projection has a bias.
        dropout_prob: probability of dropping an attention weight while training.

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
        output_bias: bool = True,
        dropout_prob: float = 0.0,
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
        self.query = Linear(query_channels, qk_channels)
        self.key = Linear(input_channels, qk_channels)
        self.value = Linear(input_channels, v_channels)
        self.output = Linear(v_channels, output_channels, bias=output_bias)
        for layer in (self.query, self.key, self.value, self.output):
            _initialise(layer)

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
        query: Float[Tensor, "#batch queries qk_channels"] | None = None,
    ) -> Float[Tensor, "batch queries output_channels"]:
        """Attends; a batch of one on either side stands for all examples.

        Args:
            mask: as in `attend`.
            query: the projection of the queries, where it is known already.
        """
        query, key, value = (
            rearrange(projected, "batch rows (heads channels) -> batch heads rows channels", heads=self.num_heads)
            for projected in (self.query(queries) if query is None else query, self.key(inputs), self.value(inputs))
        )
        dropout_prob = self.dropout_prob if self.training else 0.0
        attended = fused_attend(query, key, value, mask, dropout_prob)
        if attended is None:
            attended = attend(query, key, value, mask, dropout_prob)
        return self.output(rearrange(attended, "batch heads rows channels -> batch rows (heads channels)"))


class MLP(nn.Module):
    """Maps each row to a row of the same width through one wider hidden layer.

    QUIRK: GELU is its tanh approximation, `jax.nn.gelu`'s default (exact GELU differs by up to 4.7e-4).
    Source: the reference's `MLP`.

    Args:
        channels: width of the rows.
        widening_factor: hidden width as a multiple of `channels`.
        dropout_prob: probability of dropping an output value while training.
    """

    def __init__(self, channels: int, *, widening_factor: int = 4, dropout_prob: float = 0.0) -> None:
        super().__init__()
        self.dropout_prob = dropout_prob
        self.hidden = Linear(channels, widening_factor * channels)
        self.output = Linear(widening_factor * channels, channels)
        _initialise(self.hidden)
        _initialise(self.output)

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Applies the two layers row by row."""
        x = self.output(self.hidden(x, activation="gelu"))
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
        dropout_prob: dropout of the attention's and of the MLP's output.
        attention_dropout_prob: dropout of the attention weights.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 4,
        dropout_prob: float = 0.0,
        attention_dropout_prob: float = 0.0,
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
            dropout_prob=attention_dropout_prob,
        )
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = MLP(channels, widening_factor=widening_factor, dropout_prob=dropout_prob)

    def forward(
        self,
        x: Float[Tensor, "batch rows channels"],
        mask: Bool[Tensor, "#batch #rows #rows"] | None = None,
    ) -> Float[Tensor, "batch rows channels"]:
        """Applies the block; `mask` is True where a row may attend to another."""
        normed = self.attention_norm(x)
        x = x + F.dropout(self.attention(normed, normed, mask), self.dropout_prob, self.training)
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
        dropout_prob: dropout of the attention's and of the MLP's output.
        attention_dropout_prob: dropout of the attention weights.

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
        dropout_prob: float = 0.0,
        attention_dropout_prob: float = 0.0,
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
            dropout_prob=attention_dropout_prob,
        )
        self.mlp_norm = nn.LayerNorm(query_channels)
        self.mlp = MLP(query_channels, widening_factor=widening_factor, dropout_prob=dropout_prob)

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
        mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
        query: Float[Tensor, "#batch queries qk_channels"] | None = None,
    ) -> Float[Tensor, "batch queries query_channels"]:
        """Applies the block; a batch of one on either side stands for all examples.

        Args:
            mask: as in `attend`.
            query: what `project` makes of the queries, where it is known already.
        """
        if mask is not None and mask.shape[-1] > 1:
            inputs, mask = drop_unattended(inputs, mask)
        if looks_up_cheaply(self, queries, inputs, mask):
            return look_up(self, queries, inputs, mask)
        if gathers_cheaply(self, queries, inputs, mask):
            x = gather(self, self.project(queries) if query is None else query, inputs, mask)
        else:
            x = self.attention(self.query_norm(queries), self.input_norm(inputs), mask, query)
        x = F.dropout(x, self.dropout_prob, self.training)
        if self.use_query_residual:
            x = queries + x
        return x + self.mlp(self.mlp_norm(x))

    def project(
        self, queries: Float[Tensor, "batch queries query_channels"]
    ) -> Float[Tensor, "batch queries qk_channels"]:
        """Normalises and projects queries, as the attention does before it meets the inputs."""
        return self.attention.query(self.query_norm(queries))


def _initialise(layer: Linear) -> None:
    """Initialises a layer of attention or of an MLP as the reference's `conv_1d` is."""
    variance_scaling_(layer.weight, fan_in=layer.in_features)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
