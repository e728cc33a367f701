"""Sizes and options of a `PerceiverAR`."""

import dataclasses
from typing import Literal, get_args

from perceiver_io.attention import Activation
from perceiver_io.models.config import ModelConfig

PositionTables = Literal["none", "sinusoidal", "fourier", "linear", "learned"]
RotaryKind = Literal["none", "perceiver_ar", "standard"]
LatentQuery = Literal["linear", "mlp", "learned", "learned_shared", "embedding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceiverARConfig(ModelConfig):
    """Sizes and options of a `PerceiverAR`; the defaults are those of the reference's code (`ar-default`).

    The options of `cross_attend_own_norm` and after are for models that others trained.

    Attributes:
        vocab_size: number of token ids: 256 bytes after padding (0), end (1) and start (2).
        max_context_length: most inputs.
        num_latents: latents, the last inputs, in training; a call may ask for others.
        embed_channels: channels of the inputs.
        num_latent_channels: channels of a latent.
        num_self_attends: self-attention layers.
        num_cross_attend_heads: heads of the cross-attentions.
        num_self_attend_heads: heads of the self-attentions.
        cross_attend_widening_factor: of the MLPs after cross-attentions.
        self_attend_widening_factor: of the MLPs after self-attentions.
        activation: of all MLPs, see `attention.MLP`.
        position_tables: absolute positions, added to the inputs: a formula's or learned tables, or none.
        position_sizes: sizes of these tables, one per axis of the positions.
        train_positions: whether the tables are trained, from where the formula has them.
        positions_from_end: whether positions count from the end, the last token being 0, and so change with every
            token; else they are given, or count on from `first_position`.
        negative_positions_from_end: whether such positions are 0, -1, … in rotary encoding, not 0, 1, ….
        first_position: of the first token, where positions are not given. (In the reference's data, 0 is padding's.)
        rotary: how queries and keys are turned by their positions: "none", with the reference's frequencies or with
            "standard" ones.
        rotary_channels_fraction: fraction of a head's channels that is turned.
        rotary_heads_fraction: fraction of the heads that is turned.
        rotary_head_group_size: take `rotary_heads_fraction` in each group of so many heads of the cross-attentions.
        max_wavelength: of the rotary encoding; "perceiver_ar" wants max_context_length at least.
        num_rotary_self_attends: self-attentions, from the first on, that are rotary; None for all.
        latent_query: how latents start: "linear" or "mlp" functions of their inputs, "learned" for each place or
            "learned_shared" by all, or the "embedding" itself.
        query_mlp_layers: layers of "mlp".
        query_mlp_activation: after each of them.
        latents_per_position: latents of each position, which tell one another apart by a learned vector; they count
            in `num_latents`, and are averaged at the end.
        offset_queries: whether latents' rotary positions are 1 more, those of the tokens that they predict.
        initial_cross_attend: whether latents attend to the inputs at the start.
        additional_cross_attends: indices of self-attentions after which latents attend to the inputs again.
        cross_attend_query_residual: whether latents are added to what they attended to.
        cross_attend_shape: whose width the cross-attention's queries and keys take, see `CrossAttention`.
        zero_init_output: whether the logits start from zeros.
        dropout_prob: dropout of attention and MLP outputs.
        attention_dropout_prob: dropout of attention weights.
        input_dropout_prob: probability that latents cannot attend to an input in a training step.
        latent_dropout_prob: probability that later latents cannot attend to a latent in a training step.
        num_training_inputs: how many inputs, at random, a training step attends to; None for all.
        prefix_dropout_prob: fraction of the inputs before the latents that a training step leaves out.
        pad_token: that ends a sequence in right-padded tokens, and is never generated; None for none.
        cross_attend_own_norm: whether the norm of keys at latents' own positions is that of the queries.
        qkv_bias: whether projections to queries, keys and values have biases.
        cross_output_bias: whether the cross-attentions' last projection has one.
        self_output_bias: whether the self-attentions' last projection has one.
        mlp_bias: whether the MLPs have biases.
        output_norm: whether a norm precedes the logits.
        tied_output: whether logits are products with the embedding of the tokens.
        output_bias: whether logits have a bias.
        leaks_padding: QUIRK of krasserm's models: whether padding that reaches into the latents takes part in
            self-attention, as the mean of all inputs.
    """

    vocab_size: int = 259
    max_context_length: int = 1024
    num_latents: int = 1024
    embed_channels: int = 1024
    num_latent_channels: int = 1024
    num_self_attends: int = 12
    num_cross_attend_heads: int = 16
    num_self_attend_heads: int = 16
    cross_attend_widening_factor: int = 4
    self_attend_widening_factor: int = 4
    activation: Activation = "squared_relu"
    position_tables: PositionTables = "none"
    position_sizes: tuple[int, ...] | None = None
    train_positions: bool = False
    positions_from_end: bool = False
    negative_positions_from_end: bool = False
    first_position: Literal[0, 1] = 1
    rotary: RotaryKind = "perceiver_ar"
    rotary_channels_fraction: float = 0.5
    rotary_heads_fraction: float = 1.0
    rotary_head_group_size: int | None = None
    max_wavelength: int = 1024
    num_rotary_self_attends: int | None = None
    latent_query: LatentQuery = "linear"
    query_mlp_layers: int = 2
    query_mlp_activation: Activation = "squared_relu"
    latents_per_position: int = 1
    offset_queries: bool = False
    initial_cross_attend: bool = True
    additional_cross_attends: tuple[int, ...] | None = None
    cross_attend_query_residual: bool = True
    cross_attend_shape: Literal["q", "kv"] = "kv"
    zero_init_output: bool = True
    dropout_prob: float = 0.1
    attention_dropout_prob: float = 0.0
    input_dropout_prob: float = 0.0
    latent_dropout_prob: float = 0.0
    num_training_inputs: int | None = None
    prefix_dropout_prob: float = 0.0
    pad_token: int | Literal[0] | None = 0
    cross_attend_own_norm: bool = False
    qkv_bias: bool = True
    cross_output_bias: bool = True
    self_output_bias: bool = True
    mlp_bias: bool = True
    output_norm: bool = True
    tied_output: bool = False
    output_bias: bool = True
    leaks_padding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (
            ("activation", get_args(Activation)),
            ("query_mlp_activation", get_args(Activation)),
            ("position_tables", get_args(PositionTables)),
            ("rotary", get_args(RotaryKind)),
            ("latent_query", get_args(LatentQuery)),
            ("cross_attend_shape", ("q", "kv")),
        ):
            self.check_choice(name, choices)
        self.check_divides("num_self_attend_heads", "num_latent_channels")
        width = "embed_channels" if self.cross_attend_shape == "kv" else "num_latent_channels"
        self.check_divides("num_cross_attend_heads", width)
        self.check_divides("latents_per_position", "num_latents")
        for name in ("position_sizes", "additional_cross_attends"):
            entries = getattr(self, name)
            if entries is not None:
                object.__setattr__(self, name, tuple(entries))
        for name in (
            *("dropout_prob", "attention_dropout_prob", "input_dropout_prob", "latent_dropout_prob"),
            *("prefix_dropout_prob", "rotary_channels_fraction", "rotary_heads_fraction"),
        ):
            value = getattr(self, name)
            most = 1.0 if name.startswith("rotary") else 0.999
            if not 0 <= value <= most:
                raise ValueError(f"{name} ({value}) must lie in 0…1" + (", below 1" if most < 1 else ""))
        self._check_positions()
        self._check_layers()
        if self.pad_token is not None and not 0 <= self.pad_token < self.vocab_size:
            raise ValueError(
                f"pad_token ({self.pad_token!r}) must be one of the {self.vocab_size} ids, 0…{self.vocab_size - 1}, or "
                "None where sequences are never padded"
            )

    def _check_positions(self) -> None:
        if (self.position_tables == "none") != (self.position_sizes is None):
            raise ValueError(
                f"position_tables ({self.position_tables!r}) and position_sizes ({self.position_sizes}) must be given "
                "both, a size per axis, or neither ('none' and None)"
            )
        if self.position_sizes is not None and not self.position_sizes:
            raise ValueError("position_sizes () must have one or more entries, a size per axis")
        for size in self.position_sizes or ():
            self._check_size("position_sizes", size)
        if self.rotary != "none" and self.num_axes > 1:
            raise ValueError(
                f"rotary ({self.rotary!r}) takes positions of one axis, and position_sizes {self.position_sizes} has "
                f"{self.num_axes}; set rotary to 'none'"
            )
        if self.first_position not in (0, 1):
            raise ValueError(f"first_position ({self.first_position!r}) must be 0 or 1")
        if self.rotary == "perceiver_ar" and self.max_wavelength < self.max_context_length:
            raise ValueError(
                f"max_wavelength ({self.max_wavelength}) must be max_context_length ({self.max_context_length}) at "
                "least, so that no two positions are turned alike; set it to that"
            )
        if self.num_rotary_self_attends is not None and self.num_rotary_self_attends > self.num_self_attends:
            raise ValueError(
                f"num_rotary_self_attends ({self.num_rotary_self_attends}) must be at most num_self_attends "
                f"({self.num_self_attends}); None stands for all"
            )

    def _check_layers(self) -> None:
        for index in self.additional_cross_attends or ():
            if not isinstance(index, int) or not 0 <= index < self.num_self_attends:
                raise ValueError(
                    f"additional_cross_attends {self.additional_cross_attends} must be indices of self-attentions, "
                    f"0…{self.num_self_attends - 1}"
                )
        if self.latents_per_position > 1 and self.rotary != "none":
            raise ValueError(
                f"latents_per_position ({self.latents_per_position}) must be 1 with rotary ({self.rotary!r}): the "
                "reference has no such model; use position_tables alone"
            )
        own = self.latent_query == "embedding"
        if own and self.embed_channels != self.num_latent_channels:
            raise ValueError(
                f"latent_query 'embedding' needs embed_channels ({self.embed_channels}) and num_latent_channels "
                f"({self.num_latent_channels}) to be the same"
            )
        if self.cross_attend_own_norm and (not own or self.latents_per_position > 1):
            raise ValueError(
                "cross_attend_own_norm norms latents in place of their own inputs, which must be the same: set "
                f"latent_query ({self.latent_query!r}) to 'embedding' and latents_per_position "
                f"({self.latents_per_position}) to 1"
            )
        if self.leaks_padding and not self.cross_attend_own_norm:
            raise ValueError("leaks_padding is a quirk of models with cross_attend_own_norm; leave it out")
        if self.tied_output and self.num_latent_channels != self.embed_channels:
            raise ValueError(
                f"tied_output needs embed_channels ({self.embed_channels}) and num_latent_channels "
                f"({self.num_latent_channels}) to be the same"
            )

    @property
    def num_axes(self) -> int:
        """Axes of the positions."""
        return len(self.position_sizes or (1,))

    @property
    def can_cache(self) -> bool:
        """Whether what is computed for a token still holds when the next ones have come."""
        return (
            self.latents_per_position == 1
            and self.latent_query != "learned"
            and not (self.positions_from_end and self.position_tables != "none")
        )
