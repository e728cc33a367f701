"""The parts of a `PerceiverAR`, as its configuration says."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.attention import Cache, CrossAttention, Rotations, SelfAttention
from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.positions import FormulaTable, TrainedTable
from perceiver_io.autoregressive.queries import EmbeddingQuery, LatentQuery, LearnedQuery, LinearQuery
from perceiver_io.autoregressive.rotary import Rotary


class OwnNormCrossAttention(CrossAttention):
    """`CrossAttention` that norms the keys at the latents' own positions as it norms the queries. krasserm's.

    Attributes:
        leaks_padding: see `PerceiverARConfig`.
    """

    leaks_padding = False

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        inputs: Float[Tensor, "batch inputs channels"],
        mask: Bool[Tensor, "#batch #queries #attended"] | None = None,
        rotations: Rotations | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Applies the block; the queries are the last of the inputs."""
        normed_queries, normed_inputs = self.normalise(queries, inputs)
        x = self.attention(normed_queries, normed_inputs, mask, rotations, cache)
        if self.leaks_padding and mask is not None:
            average = self.attention.output(self.attention.value(normed_inputs.mean(dim=1, keepdim=True)))
            own = mask[:, 0, mask.shape[-1] - queries.shape[1] :, None]
            x = torch.where(own, x, average)
        x = queries + F.dropout(x, self.dropout_prob, self.training)
        return x + self.mlp(self.mlp_norm(x))

    def normalise(self, queries: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the norms before the attention."""
        normed = self.query_norm(queries)
        prefix = self.input_norm(inputs[:, : inputs.shape[1] - queries.shape[1]])
        return normed, torch.cat([prefix, normed], dim=1)


def latent_query(config: PerceiverARConfig) -> LatentQuery:
    """The module that maps the inputs at the latents' own positions to the first latents."""
    channels = config.num_latent_channels
    match config.latent_query:
        case "embedding":
            return EmbeddingQuery()
        case "learned":
            return LearnedQuery(config.num_latents // config.latents_per_position, channels)
        case "learned_shared":
            return LearnedQuery(1, channels)
    num_layers = config.query_mlp_layers if config.latent_query == "mlp" else 0
    return LinearQuery(config.embed_channels, channels, num_layers=num_layers, activation=config.query_mlp_activation)


def position_table(config: PerceiverARConfig, size: int) -> nn.Module:
    """The table of one axis of positions, whose rows are added to the inputs."""
    if config.position_tables == "learned":
        return TrainedTable(size, config.embed_channels, trains=config.train_positions)
    assert config.position_tables != "none"
    if config.train_positions:
        return TrainedTable(size, config.embed_channels, formula=config.position_tables)
    return FormulaTable(config.position_tables, size, config.embed_channels)


def cross_attend(config: PerceiverARConfig) -> CrossAttention:
    """A cross-attention from latents to inputs."""
    kind = OwnNormCrossAttention if config.cross_attend_own_norm else CrossAttention
    block = kind(
        config.num_latent_channels,
        config.embed_channels,
        num_heads=config.num_cross_attend_heads,
        shape_for_attn=config.cross_attend_shape,
        widening_factor=config.cross_attend_widening_factor,
        use_query_residual=config.cross_attend_query_residual,
        activation=config.activation,
        qkv_bias=config.qkv_bias,
        output_bias=config.cross_output_bias,
        mlp_bias=config.mlp_bias,
        dropout_prob=config.dropout_prob,
        attention_dropout_prob=config.attention_dropout_prob,
        causal=config.latents_per_position == 1,
    )
    if isinstance(block, OwnNormCrossAttention):
        block.leaks_padding = config.leaks_padding
    return block


def self_attend(config: PerceiverARConfig) -> SelfAttention:
    """A layer of self-attention among latents."""
    return SelfAttention(
        config.num_latent_channels,
        num_heads=config.num_self_attend_heads,
        widening_factor=config.self_attend_widening_factor,
        activation=config.activation,
        qkv_bias=config.qkv_bias,
        output_bias=config.self_output_bias,
        mlp_bias=config.mlp_bias,
        dropout_prob=config.dropout_prob,
        attention_dropout_prob=config.attention_dropout_prob,
        causal=config.latents_per_position == 1,
    )


def rotary(config: PerceiverARConfig, num_heads: int, channels: int, head_group_size: int | None) -> Rotary:
    """The rotary encoding of an attention with queries of so many channels in all heads."""
    assert config.rotary != "none"
    return Rotary(
        num_heads,
        channels // num_heads,
        max_wavelength=config.max_wavelength + config.offset_queries,
        channels_fraction=config.rotary_channels_fraction,
        heads_fraction=config.rotary_heads_fraction,
        head_group_size=head_group_size,
        frequencies=config.rotary,
    )
