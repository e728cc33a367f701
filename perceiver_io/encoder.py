"""The encoder: inputs of any number to a fixed number of latents (paper, section 3.1)."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_io.attention import Activation, CrossAttention, SelfAttention
from perceiver_io.checks import as_mask, check_rows, check_some
from perceiver_io.position_encoding import LearnedPositionEncoding

Mask = Bool[Tensor, "batch inputs"] | Int[Tensor, "batch inputs"]


class Round(NamedTuple):
    """A round of the encoder: the latents attend to the tokens, or do not, then to one another.

    Rounds that name the same index share the weights.

    Attributes:
        cross_attend: index of the round's cross-attention; None for none.
        block: index of its block of self-attentions.
    """

    cross_attend: int | None
    block: int


def perceiver_io_rounds(num_blocks: int) -> tuple[Round, ...]:
    """The rounds of Perceiver IO: one cross-attention, then the same block again and again."""
    return (Round(0, 0), *[Round(None, 0)] * (num_blocks - 1))


def perceiver_rounds(
    num_rounds: int, *, share_cross_attends: bool = True, share_blocks: bool = True
) -> tuple[Round, ...]:
    """The rounds of the original Perceiver (Jaegle et al., "Perceiver", 2021): each attends to the tokens anew.

    Args:
        share_cross_attends: whether all cross-attentions but the first, which has its own weights, are the same.
        share_blocks: whether all blocks are the same.
    """
    return tuple(Round(min(i, 1) if share_cross_attends else i, 0 if share_blocks else i) for i in range(num_rounds))


class PerceiverEncoder(nn.Module):
    """Maps tokens to latents: trained latents attend to the tokens, then to one another, layer after layer.

    By default they attend to the tokens once, and the layers of a block are applied `num_blocks` times with the same
    weights; `rounds` is any other order. Source: the reference's `PerceiverEncoder`.

    Args:
        input_channels: channels of the tokens.
        num_latents: number of latents.
        num_latent_channels: channels of a latent; every number of heads divides it.
        num_self_attends_per_block: self-attention layers in a block.
        num_blocks: how often the block is applied; default 8.
        rounds: what is applied in which order, in place of `num_blocks`.
        num_cross_attend_heads: heads of the cross-attention.
        num_self_attend_heads: heads of the self-attention.
        qk_channels: width of queries and keys over all heads; by default `shape_for_attn` decides in the
            cross-attention, and it is the latents' width in self-attention.
        v_channels: width of the values over all heads; default as `qk_channels`.
        shape_for_attn: see `CrossAttention`.
        use_query_residual: whether the latents are added to what they attended to.
        cross_attend_widening_factor: of the MLP after the cross-attention.
        self_attend_widening_factor: of the MLPs after self-attention.
        activation: of all MLPs, see `MLP`.
        dropout_prob: dropout of attention and MLP outputs.
        attention_dropout_prob: dropout of attention weights.
        latent_init_std: deviation of the truncated normal that the latents start from.
        gradient_checkpointing: whether training recomputes each layer in the backward pass instead of keeping its
            intermediate values, for memory; an attribute that may be changed later.

    Attributes:
        input_channels: channels of the tokens.
        num_latent_channels: channels of a latent.

    Raises:
        ValueError: if a number of heads does not divide the width, or for impossible rounds.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        num_latents: int = 512,
        num_latent_channels: int = 1024,
        num_self_attends_per_block: int = 6,
        num_blocks: int | None = None,
        rounds: Sequence[Round] | None = None,
        num_cross_attend_heads: int = 1,
        num_self_attend_heads: int = 8,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        shape_for_attn: Literal["q", "kv"] = "kv",
        use_query_residual: bool = True,
        cross_attend_widening_factor: int = 1,
        self_attend_widening_factor: int = 1,
        activation: Activation = "gelu_tanh",
        dropout_prob: float = 0.0,
        attention_dropout_prob: float = 0.0,
        latent_init_std: float = 0.02,
        gradient_checkpointing: bool = False,
    ) -> None:
        for name, heads in (
            ("num_cross_attend_heads", num_cross_attend_heads),
            ("num_self_attend_heads", num_self_attend_heads),
        ):
            if heads < 1 or num_latent_channels % heads:
                raise ValueError(
                    f"{name} ({heads}) must divide num_latent_channels ({num_latent_channels}); "
                    "choose another number of heads or of channels"
                )
        if rounds is None:
            rounds = perceiver_io_rounds(8 if num_blocks is None else num_blocks)
        elif num_blocks is not None:
            raise ValueError(f"num_blocks ({num_blocks}) and rounds say the same thing; give one of the two")

        def cross_attend() -> CrossAttention:
            return CrossAttention(
                num_latent_channels,
                input_channels,
                num_heads=num_cross_attend_heads,
                shape_for_attn=shape_for_attn,
                qk_channels=qk_channels,
                v_channels=v_channels,
                widening_factor=cross_attend_widening_factor,
                use_query_residual=use_query_residual,
                activation=activation,
                dropout_prob=dropout_prob,
                attention_dropout_prob=attention_dropout_prob,
            )

        def self_attend() -> SelfAttention:
            return SelfAttention(
                num_latent_channels,
                num_heads=num_self_attend_heads,
                qk_channels=qk_channels,
                v_channels=v_channels,
                widening_factor=self_attend_widening_factor,
                activation=activation,
                dropout_prob=dropout_prob,
                attention_dropout_prob=attention_dropout_prob,
            )

        num_cross_attends, num_distinct_blocks = _check_rounds(rounds)
        self._assemble(
            LearnedPositionEncoding(num_latents, num_latent_channels, init_std=latent_init_std),
            [cross_attend() for _ in range(num_cross_attends)],
            [[self_attend() for _ in range(num_self_attends_per_block)] for _ in range(num_distinct_blocks)],
            rounds,
        )
        self.gradient_checkpointing = gradient_checkpointing

    @classmethod
    def of_blocks(
        cls,
        latents: LearnedPositionEncoding,
        cross_attends: Sequence[CrossAttention],
        blocks: Sequence[Sequence[SelfAttention]],
        rounds: Sequence[Round],
    ) -> "PerceiverEncoder":
        """Builds an encoder of layers that are there already, which may differ from one another.

        Raises:
            ValueError: if the rounds do not use just these layers.
        """
        if _check_rounds(rounds) != (len(cross_attends), len(blocks)):
            raise ValueError(
                f"rounds {tuple(map(tuple, rounds))} must use each of the {len(cross_attends)} cross-attentions and "
                f"{len(blocks)} blocks, and no others"
            )
        encoder = cls.__new__(cls)
        encoder._assemble(latents, cross_attends, blocks, rounds)
        return encoder

    def _assemble(
        self,
        latents: LearnedPositionEncoding,
        cross_attends: Sequence[CrossAttention],
        blocks: Sequence[Sequence[SelfAttention]],
        rounds: Sequence[Round],
    ) -> None:
        super().__init__()
        self.input_channels = cross_attends[0].input_norm.normalized_shape[0]
        self.num_latent_channels = latents.num_channels
        self.rounds = tuple(Round(*entry) for entry in rounds)
        self.gradient_checkpointing = False
        self.latents = latents
        # The first of each has the name that it has in the released models, where it is the only one.
        self.cross_attend, *further_cross_attends = cross_attends
        self.self_attends, *further_self_attends = map(nn.ModuleList, blocks)
        self.further_cross_attends = nn.ModuleList(further_cross_attends)
        self.further_self_attends = nn.ModuleList(further_self_attends)

    def forward(
        self,
        tokens: Float[Tensor, "batch inputs channels"],
        input_mask: Mask | None = None,
    ) -> Float[Tensor, "batch latents latent_channels"]:
        """Encodes tokens; those where `input_mask` is False (or 0) have no influence, whatever they hold.

        Raises:
            ValueError: for tokens of another width, kind or number, or a mask that does not fit them.
        """
        latents = self.latents()
        check_rows("tokens", tokens, self.input_channels, "the encoder", latents.dtype)
        check_some("tokens", tokens.shape[1])
        mask = None if input_mask is None else as_mask("input_mask", input_mask, tokens.shape[:2])[:, None, :]
        for cross_attend, block in self.rounds:
            if cross_attend is not None:
                latents = self._run(self.cross_attends[cross_attend], latents, tokens, mask)
            for self_attend in self.blocks[block]:
                latents = self._run(self_attend, latents)
        return latents

    @property
    def cross_attends(self) -> list[nn.Module]:
        """The cross-attentions, by the index that rounds name them by."""
        return [self.cross_attend, *self.further_cross_attends]

    @property
    def blocks(self) -> list[nn.ModuleList]:
        """The blocks of self-attentions, by the index that rounds name them by."""
        return [self.self_attends, *cast(Iterable[nn.ModuleList], self.further_self_attends)]

    def _run(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def _check_rounds(rounds: Sequence[Round]) -> tuple[int, int]:
    """Counts the cross-attentions and blocks that rounds name.

    Raises:
        ValueError: if there is no round, if the first does not attend to the tokens, or if an index is left out.
    """
    if not rounds or rounds[0][0] is None:
        raise ValueError(
            f"rounds {tuple(map(tuple, rounds))} must begin with one that attends to the tokens, such as Round(0, 0); "
            "there must be one at least"
        )
    counts = []
    for what, indices in (
        ("cross-attention", {cross_attend for cross_attend, _ in rounds if cross_attend is not None}),
        ("block", {block for _, block in rounds}),
    ):
        if indices != set(range(len(indices))):
            raise ValueError(f"rounds name the {what} indices {sorted(indices)}; they must be 0, 1, … without gaps")
        counts.append(len(indices))
    return counts[0], counts[1]
