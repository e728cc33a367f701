"""lucidrains' `perceiver-pytorch`: its constructors and forward calls as typed, and its state dicts.

Each class puts this library's modules together; nothing of that package is needed. Data are channels last,
[batch, *axes, channels]. The function is the package's (0.11.0): pre-norm blocks; queries, keys and values without
biases; GEGLU with exact GELU, four times as wide; per axis of the input [sines, cosines, coordinate] with frequencies
from 1 to `max_freq / 2`, after the data's channels. The models are accelerated (see `perceiver_io.fast`).

    perceiver-pytorch                       here
    latents                                 encoder.latents.embeddings
    layers.I.cross_attn, .cross_ff          encoder.cross_attend, encoder.further_cross_attends
    layers.I.self_attns.J.{0,1}             encoder.self_attends.J, encoder.further_self_attends.I.J
    norm, norm_context                      query_norm (attention_norm), input_norm; mlp_norm
    fn.to_q, fn.to_kv, fn.to_out            attention.query, attention.key and .value, attention.output
    fn.net.0, fn.net.2                      mlp.hidden, mlp.output

DEVIATION: an example whose mask is False everywhere attends to nothing here, as in `perceiver_io.attention.attend`; the
package has it attend to all inputs alike, padding included.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perceiver_io.attention import Attention, CrossAttention, SelfAttention
from perceiver_io.compat import perceiver_pytorch_names as names
from perceiver_io.encoder import PerceiverEncoder, Round
from perceiver_io.fast import accelerate
from perceiver_io.position_encoding import LearnedPositionEncoding

_FF_WIDENING_FACTOR = 4


class Perceiver(nn.Module):
    """The original Perceiver as that package has it: maps data to class logits.

    Args:
        num_freq_bands: frequencies per axis.
        depth: rounds of one cross-attention and `self_per_cross_attn` self-attentions.
        max_freq: twice the highest frequency.
        input_channels: channels of the data.
        input_axis: axes of the data between batch and channels.
        num_latents: number of latents.
        latent_dim: channels of a latent.
        cross_heads: heads of the cross-attentions.
        latent_heads: heads of the self-attentions.
        cross_dim_head: channels of a head of the cross-attentions.
        latent_dim_head: channels of a head of the self-attentions.
        num_classes: number of classes.
        attn_dropout: probability of dropping an attention weight while training.
        ff_dropout: probability of dropping an output value of an MLP while training.
        weight_tie_layers: whether all rounds but the first share their weights.
        fourier_encode_data: whether positions are appended to the data's channels.
        self_per_cross_attn: self-attentions of a round.
        final_classifier_head: whether the latents' mean becomes logits; without, the latents are returned.
        inverted_cross_attn: False; the package's slot-like attention is not built.
        attn_residual: False; the package's attention over earlier layers is not built.
        attn_residual_rank: without a meaning then.

    Raises:
        ValueError: for an option that is not built, or a size that cannot be.
    """

    def __init__(
        self,
        *,
        num_freq_bands: int,
        depth: int,
        max_freq: float | int,
        input_channels: int = 3,
        input_axis: int = 2,
        num_latents: int = 512,
        latent_dim: int = 512,
        cross_heads: int = 1,
        latent_heads: int = 8,
        cross_dim_head: int = 64,
        latent_dim_head: int = 64,
        num_classes: int = 1000,
        attn_dropout: float | int = 0.0,
        ff_dropout: float | int = 0.0,
        weight_tie_layers: bool = False,
        fourier_encode_data: bool = True,
        self_per_cross_attn: int = 1,
        final_classifier_head: bool = True,
        inverted_cross_attn: bool | tuple[bool, ...] = False,
        attn_residual: bool = False,
        attn_residual_rank: int = 64,
    ) -> None:
        super().__init__()
        _refuse_options(inverted_cross_attn, attn_residual)
        _check_sizes(depth=depth, input_axis=input_axis, num_latents=num_latents, latent_dim=latent_dim)
        self.input_axis = input_axis
        self.max_freq = max_freq
        self.num_freq_bands = num_freq_bands
        self.fourier_encode_data = fourier_encode_data
        input_dim = input_channels + (input_axis * (2 * num_freq_bands + 1) if fourier_encode_data else 0)
        self.input_channels = input_channels
        tied = (min(index, 1) if weight_tie_layers else index for index in range(depth))
        rounds = [Round(index, index) for index in tied]
        num_distinct = 1 + max(entry.block for entry in rounds)
        self.encoder = PerceiverEncoder.of_blocks(
            _latents(num_latents, latent_dim),
            [
                _cross_attend(latent_dim, input_dim, cross_heads, cross_dim_head, attn_dropout, ff_dropout)
                for _ in range(num_distinct)
            ],
            [
                [
                    _self_attend(latent_dim, latent_heads, latent_dim_head, attn_dropout, ff_dropout)
                    for _ in range(self_per_cross_attn)
                ]
                for _ in range(num_distinct)
            ],
            rounds,
        )
        self.to_logits = (
            nn.Sequential(_Mean(), nn.LayerNorm(latent_dim), nn.Linear(latent_dim, num_classes))
            if final_classifier_head
            else nn.Identity()
        )
        _finish(self)

    def forward(
        self,
        data: Float[Tensor, "batch *axes channels"],
        mask: Bool[Tensor, "batch *axes"] | None = None,
        return_embeddings: bool = False,
        block_outputs: Sequence[Tensor] | Tensor | None = None,
        return_hiddens: bool = False,
    ) -> Any:
        """Maps data to logits [batch, classes].

        Args:
            data: channels last.
            mask: True where an input is valid.
            return_embeddings: whether the latents [batch, latents, channels] are returned in place of logits.
            block_outputs: hidden states of earlier layers, which the returned list begins with.
            return_hiddens: whether the latents before and after each round are returned too, as a list.

        Raises:
            ValueError: for data with other axes or channels than the model's.
        """
        if data.ndim != self.input_axis + 2 or data.shape[-1] != self.input_channels:
            raise ValueError(
                f"data {tuple(data.shape)} must be [batch, *axes, channels] with input_axis ({self.input_axis}) axes "
                f"and input_channels ({self.input_channels}) channels; move the channels last or build the model so"
            )
        if self.fourier_encode_data:
            data = torch.cat([data, self._positions(data).expand(len(data), *data.shape[1:-1], -1)], dim=-1)
        latents, hiddens = _encode(
            self.encoder, data.flatten(1, -2), _flat(mask), block_outputs, return_hiddens, before_rounds=True
        )
        outputs = latents if return_embeddings else self.to_logits(latents)
        return (outputs, hiddens) if return_hiddens else outputs

    def _positions(self, data: Tensor) -> Float[Tensor, "*axes channels"]:
        """The channels of all positions; each axis's small table is repeated along the others."""
        index_dims = data.shape[1:-1]
        precision = torch.promote_types(data.dtype, torch.float32)
        encoded = []
        for axis, size in enumerate(index_dims):
            coordinates = torch.linspace(-1.0, 1.0, size, device=data.device, dtype=precision)[:, None]
            angles = coordinates * self._frequencies(coordinates) * math.pi
            table = torch.cat([angles.sin(), angles.cos(), coordinates], dim=-1).to(data.dtype)
            along = [-1 if index == axis else 1 for index in range(len(index_dims))]
            encoded.append(table.reshape(*along, table.shape[-1]).expand(*index_dims, -1))
        return torch.cat(encoded, dim=-1)

    def _frequencies(self, like: Tensor) -> Float[Tensor, "bands"]:
        return torch.linspace(1.0, self.max_freq / 2, self.num_freq_bands, device=like.device, dtype=like.dtype)


class PerceiverIO(nn.Module):
    """Perceiver IO as that package has it: maps data to latents, and queries to outputs.

    Args:
        depth: latent layers, a self-attention each.
        dim: channels of the data.
        queries_dim: channels of the queries.
        logits_dim: channels of the outputs; None for the queries' width.
        num_latents: number of latents.
        latent_dim: channels of a latent.
        cross_heads: heads of the two cross-attentions.
        latent_heads: heads of the self-attentions.
        cross_dim_head: channels of a head of the cross-attentions.
        latent_dim_head: channels of a head of the self-attentions.
        weight_tie_layers: whether all latent layers share their weights.
        decoder_ff: whether an MLP follows the decoder's cross-attention.
        seq_dropout_prob: share of the inputs that training leaves out, the same number in every example.
        attn_residual: False; the package's attention over earlier layers is not built.
        attn_residual_rank: without a meaning then.
        inverted_cross_attn: False; the package's slot-like attention is not built.

    Raises:
        ValueError: for an option that is not built, or a size that cannot be.
    """

    def __init__(
        self,
        *,
        depth: int,
        dim: int,
        queries_dim: int,
        logits_dim: int | None = None,
        num_latents: int = 512,
        latent_dim: int = 512,
        cross_heads: int = 1,
        latent_heads: int = 8,
        cross_dim_head: int = 64,
        latent_dim_head: int = 64,
        weight_tie_layers: bool = False,
        decoder_ff: bool = False,
        seq_dropout_prob: float | int = 0.0,
        attn_residual: bool = False,
        attn_residual_rank: int = 64,
        inverted_cross_attn: bool = False,
    ) -> None:
        super().__init__()
        _refuse_options(inverted_cross_attn, attn_residual)
        _check_sizes(depth=depth, dim=dim, queries_dim=queries_dim, num_latents=num_latents, latent_dim=latent_dim)
        if not 0 <= seq_dropout_prob < 1:
            raise ValueError(f"seq_dropout_prob ({seq_dropout_prob}) must lie in [0, 1): a share of the inputs")
        self.seq_dropout_prob = seq_dropout_prob
        rounds = [Round(None if index else 0, 0 if weight_tie_layers else index) for index in range(depth)]
        self.encoder = PerceiverEncoder.of_blocks(
            _latents(num_latents, latent_dim),
            [_cross_attend(latent_dim, dim, cross_heads, cross_dim_head)],
            [[_self_attend(latent_dim, latent_heads, latent_dim_head)] for _ in range(1 + rounds[-1].block)],
            rounds,
        )
        self.decoder = (
            _cross_attend(queries_dim, latent_dim, cross_heads, cross_dim_head, use_query_residual=False)
            if decoder_ff
            else _AttentionAlone(queries_dim, latent_dim, cross_heads, cross_dim_head)
        )
        self.to_logits = nn.Identity() if logits_dim is None else nn.Linear(queries_dim, logits_dim)
        _finish(self)

    def forward(
        self,
        data: Float[Tensor, "batch inputs channels"],
        mask: Bool[Tensor, "batch inputs"] | None = None,
        queries: Float[Tensor, "outputs query_channels"] | Float[Tensor, "#batch outputs query_channels"] | None = None,
        block_outputs: Sequence[Tensor] | Tensor | None = None,
        return_hiddens: bool = False,
    ) -> Any:
        """Maps data and queries to outputs [batch, outputs, channels].

        Args:
            data: the inputs.
            mask: True where an input is valid.
            queries: one set for all examples or one for each; None: the latents are returned.
            block_outputs: hidden states of earlier layers, which the returned list begins with.
            return_hiddens: whether the latents before and after each layer are returned too, as a list.
        """
        mask = _flat(mask)
        if self.training and self.seq_dropout_prob:
            data, mask = _drop_inputs(data, mask, self.seq_dropout_prob)
        latents, hiddens = _encode(self.encoder, data, mask, block_outputs, return_hiddens, before_rounds=False)
        outputs = latents
        if queries is not None:
            outputs = self.to_logits(self.decoder(queries[None] if queries.ndim == 2 else queries, latents))
        return (outputs, hiddens) if return_hiddens else outputs


class PerceiverLM(nn.Module):
    """The package's language model: embedded tokens are inputs and queries.

    Args:
        dim: channels of an embedding.
        num_tokens: number of token ids.
        max_seq_len: positions that are learned.
        perceiver_io: further arguments of `PerceiverIO`.
    """

    def __init__(self, *, dim: int, num_tokens: int, max_seq_len: int, **perceiver_io: Any) -> None:
        super().__init__()
        self.token_emb = nn.Embedding(num_tokens, dim)
        self.pos_emb = nn.Embedding(max_seq_len, dim)
        self.perceiver_io = PerceiverIO(dim=dim, queries_dim=dim, logits_dim=num_tokens, **perceiver_io)

    def forward(
        self, x: Int[Tensor, "batch sequence"], mask: Bool[Tensor, "batch sequence"] | None = None
    ) -> Float[Tensor, "batch sequence tokens"]:
        """Maps token ids to logits.

        Raises:
            ValueError: for more tokens than there are positions.
        """
        if x.shape[1] > self.pos_emb.num_embeddings:
            raise ValueError(
                f"{x.shape[1]} tokens are more than max_seq_len ({self.pos_emb.num_embeddings}); cut them, or build "
                "the model with a larger max_seq_len"
            )
        embedded = self.token_emb(x) + self.pos_emb.weight[: x.shape[1]]
        return cast(Tensor, self.perceiver_io(embedded, mask=mask, queries=embedded))


class _Mean(nn.Module):
    """Maps rows to their mean."""

    def forward(self, rows: Float[Tensor, "batch rows channels"]) -> Float[Tensor, "batch channels"]:
        """Averages."""
        return rows.mean(dim=1)


class _AttentionAlone(nn.Module):
    """A pre-norm cross-attention without residual and MLP, which `CrossAttention` always has."""

    def __init__(self, query_channels: int, input_channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(query_channels)
        self.input_norm = nn.LayerNorm(input_channels)
        self.attention = Attention(
            query_channels,
            input_channels,
            num_heads=heads,
            qk_channels=heads * head_channels,
            output_channels=query_channels,
            qkv_bias=False,
        )

    def forward(
        self,
        queries: Float[Tensor, "#batch queries query_channels"],
        inputs: Float[Tensor, "#batch inputs input_channels"],
    ) -> Float[Tensor, "batch queries query_channels"]:
        """Attends."""
        return cast(Tensor, self.attention(self.query_norm(queries), self.input_norm(inputs)))


def _latents(num_latents: int, channels: int) -> LearnedPositionEncoding:
    latents = LearnedPositionEncoding(num_latents, channels)
    nn.init.normal_(latents.embeddings)
    return latents


def _cross_attend(
    channels: int,
    input_channels: int,
    heads: int,
    head_channels: int,
    attn_dropout: float | int = 0.0,
    ff_dropout: float | int = 0.0,
    use_query_residual: bool = True,
) -> CrossAttention:
    block = CrossAttention(
        channels,
        input_channels,
        num_heads=heads,
        qk_channels=heads * head_channels,
        widening_factor=_FF_WIDENING_FACTOR,
        use_query_residual=use_query_residual,
        activation="geglu",
        qkv_bias=False,
        attention_dropout_prob=attn_dropout,
    )
    block.mlp.dropout_prob = ff_dropout  # of the MLP alone, not of the attention's output
    return block


def _self_attend(
    channels: int, heads: int, head_channels: int, attn_dropout: float = 0.0, ff_dropout: float = 0.0
) -> SelfAttention:
    block = SelfAttention(
        channels,
        num_heads=heads,
        qk_channels=heads * head_channels,
        widening_factor=_FF_WIDENING_FACTOR,
        activation="geglu",
        qkv_bias=False,
        attention_dropout_prob=attn_dropout,
    )
    block.mlp.dropout_prob = ff_dropout
    return block


def _finish(model: nn.Module) -> None:
    """Initialises linear layers as PyTorch does, as the package leaves them; takes its names; accelerates."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    model.register_load_state_dict_pre_hook(names.take_in)
    accelerate(model)


def _encode(
    encoder: PerceiverEncoder,
    tokens: Tensor,
    mask: Tensor | None,
    block_outputs: Sequence[Tensor] | Tensor | None,
    return_hiddens: bool,
    before_rounds: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Encodes; with the hidden states, if wanted, from before the first cross-attention on or from after it."""
    if not return_hiddens:
        return encoder(tokens, mask), []
    latents = encoder.latents().expand(len(tokens), -1, -1)
    hiddens = [block_outputs] if isinstance(block_outputs, Tensor) else list(block_outputs or ())
    given = block_outputs is not None
    if before_rounds and not given:
        hiddens.append(latents)
    attention_mask = None if mask is None else mask[:, None]
    for cross_attend, block in encoder.rounds:
        if cross_attend is not None:
            latents = encoder.cross_attends[cross_attend](latents, tokens, attention_mask)
            if not before_rounds and not given:
                hiddens.append(latents)
        for self_attend in encoder.blocks[block]:
            latents = self_attend(latents)
        hiddens.append(latents)
    return latents, hiddens


def _flat(mask: Tensor | None) -> Bool[Tensor, "batch inputs"] | None:
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask ({mask.dtype}) must be of torch.bool, True where an input is valid; try mask.bool()")
    return None if mask is None else mask.flatten(1)


def _drop_inputs(data: Tensor, mask: Tensor | None, share: float) -> tuple[Tensor, Tensor | None]:
    """Keeps a random part of each example's inputs, valid ones first, as the package does."""
    scores = torch.randn(data.shape[:2], device=data.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
    kept = scores.topk(max(1, int((1 - share) * data.shape[1])), dim=1).indices
    data = data.take_along_dim(kept[..., None], dim=1)
    if mask is None:
        return data, None
    wanted = torch.ceil(mask.sum(-1) * (1 - share)).int()
    within = torch.arange(kept.shape[1], device=data.device) < wanted[:, None]
    return data, mask.take_along_dim(kept, dim=1) & within


def _refuse_options(inverted_cross_attn: bool | tuple[bool, ...], attn_residual: bool) -> None:
    inverted = any(inverted_cross_attn) if isinstance(inverted_cross_attn, tuple) else inverted_cross_attn
    for name, value in (("inverted_cross_attn", inverted), ("attn_residual", attn_residual)):
        if value:
            raise ValueError(
                f"{name} (True) is not built here: it is no part of the Perceiver; leave it out, or stay with "
                "perceiver-pytorch for this model"
            )


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} ({size}) must be at least 1")
