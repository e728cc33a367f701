"""Attention maps: the weights that fused attention never holds as a whole.

They are computed again from what the blocks of a running model are given.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_io.attention import CrossAttention, SelfAttention
from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.encoder import PerceiverEncoder
from perceiver_io.perceiver import PerceiverIO

Stage = Literal["encoder", "latents", "decoder"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class AttentionMaps:
    """The attention weights of a model's last encoding, and of all that has been decoded since.

    Weights are 0…1. Those of a query sum to 1, or to 0 where a mask leaves it nothing to attend to.
    """

    def __init__(self) -> None:
        self._recorded: dict[Stage, list[Tensor]] = {}

    @property
    def encoder(self) -> Float[Tensor, "batch heads latents inputs"]:
        """Of the first cross-attention; inputs of several modalities lie in the sorted order of their names."""
        return self.cross_attends[0]

    @property
    def cross_attends(self) -> list[Float[Tensor, "batch heads latents inputs"]]:
        """Of each of the encoder's cross-attentions, in the order of their application; Perceiver IO has one."""
        return list(self._of("encoder"))

    @property
    def latents(self) -> list[Float[Tensor, "batch heads latents latents"]]:
        """Of each self-attention, in the order of their application: `num_blocks` times through the layers."""
        return list(self._of("latents"))

    @property
    def decoder(self) -> Float[Tensor, "batch heads outputs latents"]:
        """Of the decoder's cross-attention; outputs lie in the order in which they were decoded."""
        return torch.cat(self._of("decoder"), dim=2)

    def clear(self) -> None:
        """Forgets everything."""
        self._recorded.clear()

    def add(self, stage: Stage, weights: Float[Tensor, "batch heads queries inputs"]) -> None:
        """Adds the weights of a call."""
        self._recorded.setdefault(stage, []).append(weights)

    def count(self, stage: Stage) -> int:
        """Number of calls that have been recorded."""
        return len(self._recorded.get(stage, []))

    def _of(self, stage: Stage) -> list[Tensor]:
        if not self.count(stage):
            raise ValueError(
                f"no attention of the {stage} is recorded; name it in `stages`, and run the model within the block of "
                "`with record_attention(model, stages) as maps:`"
            )
        return self._recorded[stage]


@contextmanager
def record_attention(model: PerceiverIO, stages: Sequence[Stage] = STAGES) -> Iterator[AttentionMaps]:
    """Maps a model to the attention weights of what it does within the block; its results stay the same.

    To rounding, if the model is accelerated: where weights are recorded, fast paths stand aside.

        with record_attention(model, stages=("encoder",)) as maps:
            logits = model(images)
        maps.encoder  # [batch, heads, latents, inputs]

    Each encoding starts anew, so that of a frame in tiles the last tile's weights remain. Weights have neither gradient
    nor dropout. They take the memory that fused attention saves: 1.5 GB for the encoder of the released optical flow
    model, and as much for its decoder; `stages` leaves out what is not wanted.

    Args:
        model: the model itself, not what `torch.compile` makes of it.
        stages: whose attention to record: the encoder's cross-attention, the latents' self-attention, the decoder's
            cross-attention.

    Raises:
        ValueError: for an unknown stage, or one without attention in this model.
    """
    blocks = [block for stage in dict.fromkeys(stages) for block in _blocks(model, stage)]
    maps = AttentionMaps()
    with ExitStack() as hooks:
        hooks.enter_context(model.encoder.register_forward_pre_hook(lambda *_: maps.clear()))
        for stage, block, weights, most in blocks:
            hooks.enter_context(block.register_forward_hook(_recorder(maps, stage, weights, most), with_kwargs=True))
        yield maps


def attention_weights(
    query: Float[Tensor, "*#batch heads queries qk_channels"],
    key: Float[Tensor, "*#batch heads inputs qk_channels"],
    mask: Bool[Tensor, "*#batch #queries #inputs"] | None = None,
) -> Float[Tensor, "*batch heads queries inputs"]:
    """Maps queries and keys to how much of its attention each query pays to each input, head by head.

    Args:
        mask: True where a query may attend to an input; queries without any valid input pay none.
    """
    # Scaled here rather than as scores, which are usually more numbers.
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    mask = mask.unsqueeze(-3)  # the same for all heads
    scores = scores.masked_fill(~mask, -1e4 if scores.dtype == torch.float16 else -1e30)
    return scores.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0.0)


def block_attention_weights(
    block: CrossAttention | SelfAttention,
    queries: Float[Tensor, "#batch queries query_channels"],
    inputs: Float[Tensor, "#batch inputs input_channels"],
    mask: Bool[Tensor, "#batch #queries #inputs"] | None = None,
) -> Float[Tensor, "batch heads queries inputs"]:
    """Maps what a block is given (for self-attention, the same rows twice) to its attention weights.

    Args:
        mask: as in `attention.attend`.
    """
    if isinstance(block, CrossAttention):
        queries, inputs = block.query_norm(queries), block.input_norm(inputs)
    else:
        queries, inputs = block.attention_norm(queries), block.attention_norm(inputs)
    query, key = (
        rearrange(rows, "batch rows (heads channels) -> batch heads rows channels", heads=block.attention.num_heads)
        for rows in (block.attention.query(queries), block.attention.key(inputs))
    )
    return attention_weights(query, key, mask)


def _blocks(model: PerceiverIO, stage: str) -> Iterator[tuple[Stage, nn.Module, Callable[..., Tensor], int | None]]:
    """The modules of a stage, each with what maps its call to weights and how many calls there are in an encoding."""
    match stage, model.encoder, model.decoder:
        case "encoder", PerceiverEncoder() as encoder, _:
            calls = sum(entry.cross_attend is not None for entry in encoder.rounds)
            for block in encoder.cross_attends:
                yield stage, block, _of_cross_attention, calls
        case "latents", PerceiverEncoder() as encoder, _:
            calls = sum(len(encoder.blocks[entry.block]) for entry in encoder.rounds)
            for block in dict.fromkeys(block for blocks in encoder.blocks for block in blocks):
                yield stage, block, _of_self_attention, calls
        case "decoder", _, PerceiverDecoder() as decoder:
            yield stage, decoder, _of_decoder, None
        case _:
            raise ValueError(
                f"there is no attention of {stage!r} to record; stages are 'encoder' and 'latents' of a "
                f"PerceiverEncoder (here: {type(model.encoder).__name__}) and 'decoder' of a PerceiverDecoder "
                f"(here: {type(model.decoder).__name__})"
            )


def _recorder(
    maps: AttentionMaps, stage: Stage, weights: Callable[..., Tensor], most: int | None
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    """A hook that records the weights of a module's call."""

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        # With gradient checkpointing, the backward pass calls modules again.
        if most is None or maps.count(stage) < most:
            with torch.no_grad():
                maps.add(stage, weights(module, *args, **kwargs))

    return record


# These take what the modules' `forward` takes.


def _of_cross_attention(block: CrossAttention, queries: Tensor, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
    return block_attention_weights(block, queries, inputs, mask)


def _of_self_attention(block: SelfAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    return block_attention_weights(block, x, x, mask)


def _of_decoder(
    decoder: PerceiverDecoder, queries: Tensor, latents: Tensor, query_mask: Tensor | None = None
) -> Tensor:
    mask = None if query_mask is None else query_mask.bool()[:, :, None]
    return block_attention_weights(decoder.cross_attend, queries, latents, mask)
