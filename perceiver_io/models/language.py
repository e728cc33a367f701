"""Masked language modelling on UTF-8 bytes (paper, section 4.1), and what all models of text have in common."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_io.checks import as_mask, check_integers, check_points
from perceiver_io.models.config import DecoderConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.position_encoding import LearnedPositionEncoding, check_indices
from perceiver_io.postprocessors import TiedEmbeddingPostprocessor
from perceiver_io.preprocessors import ByteEmbedding, Preprocessor
from perceiver_io.queries import PositionQuery

Mask = Bool[Tensor, "batch sequence"] | Int[Tensor, "batch sequence"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(DecoderConfig):
    """Base of the configurations of models that read text.

    Attributes:
        vocab_size: number of token ids: 256 bytes after 6 special ones.
        max_seq_len: longest sequence, in tokens.
        embed_channels: channels of token embeddings.
        qk_channels: width of the encoder's queries and keys over all heads; None for the reference's default, the
            embeddings' width in the cross-attention and the latents' in self-attention.
    """

    vocab_size: int = 262
    max_seq_len: int = 2048
    embed_channels: int = 768
    num_latents: int = 256
    num_latent_channels: int = 1280
    num_self_attends_per_block: int = 26
    num_blocks: int = 1
    num_cross_attend_heads: int = 8
    qk_channels: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qk_channels is None:
            self.check_divides("num_cross_attend_heads", "embed_channels")
        else:
            self.check_divides("num_self_attend_heads", "qk_channels")
            self.check_divides("num_cross_attend_heads", "qk_channels")

    def text_preprocessor(self) -> Preprocessor:
        """Builds the embedding of tokens and of their positions."""
        return Preprocessor(
            ByteEmbedding(self.vocab_size, self.embed_channels),
            LearnedPositionEncoding(self.max_seq_len, self.embed_channels),
            concat_or_add_pos="add",
        )

    def check_tokens(
        self, tokens: Int[Tensor, "batch sequence"], mask: Mask | None = None
    ) -> Bool[Tensor, "batch sequence"] | None:
        """Checks the inputs of a model of text, the ids only where that does not stop a device or a compiler.

        Returns:
            the mask, as bool.

        Raises:
            ValueError: if the sequence is too long, an id is out of range, or the mask is of another kind or shape.
        """
        check_integers("token ids", tokens, ("batch", "sequence"), self.vocab_size)
        length = tokens.shape[1]
        if length > self.max_seq_len:
            raise ValueError(
                f"sequence of {length} tokens is longer than max_seq_len ({self.max_seq_len}); cut it in pieces"
            )
        return None if mask is None else as_mask("mask", mask, tokens.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(TextConfig):
    """Sizes of a `LanguagePerceiver`; the defaults are the released model's (201.1M parameters).

    Attributes:
        vocab_size: number of token ids: 256 bytes after 6 special ones.
        max_seq_len: longest sequence, in tokens.
        embed_channels: channels of token embeddings, queries and outputs.
        qk_channels: width of queries and keys over all heads, in the decoder too unless `decoder_qk_channels` names
            another one there.
    """

    num_decoder_heads: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for width in ("decoder_qk_channels" if self.decoder_qk_channels else "qk_channels", "embed_channels"):
            if getattr(self, width) is not None:
                self.check_divides("num_decoder_heads", width)


class LanguagePerceiver(PerceiverIO):
    """Maps bytes to logits of the byte at each position.

    Source: the reference's `masked_language_modelling` colab.
    """

    config: LanguageConfig

    def __init__(self, config: LanguageConfig) -> None:
        preprocessor = config.text_preprocessor()
        assert isinstance(preprocessor.featurizer, ByteEmbedding)
        super().__init__(
            input_preprocessor=preprocessor,
            encoder=config.encoder(
                config.embed_channels,
                qk_channels=config.qk_channels,
                v_channels=None if config.qk_channels is None else config.num_latent_channels,
            ),
            output_query=PositionQuery(LearnedPositionEncoding(config.max_seq_len, config.embed_channels)),
            decoder=config.decoder(
                config.embed_channels, None, qk_channels=config.qk_channels, v_channels=config.embed_channels
            ),
            output_postprocessor=TiedEmbeddingPostprocessor(preprocessor.featurizer),
        )
        self.config = config

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self,
        tokens: Int[Tensor, "batch sequence"],
        mask: Mask | None = None,
        points: Int[Tensor, "... points"] | None = None,
    ) -> Float[Tensor, "batch points vocab"]:
        """Maps token ids to logits.

        Sequences shorter than `max_seq_len` need no padding: padded and masked ones give the same logits.

        Args:
            tokens: ids in 0…vocab_size - 1; at most max_seq_len of them.
            mask: True where a token is valid.
            points: positions to predict, for all examples or for each, for instance the masked ones; None for all.

        Raises:
            ValueError: if the sequence is too long, the mask is not of its shape, or a point lies outside the sequence.
        """
        mask = self.config.check_tokens(tokens, mask)
        length = tokens.shape[1]
        encoding = self.encode(tokens, mask)
        if points is None:
            return self.decode(encoding, points=slice(0, length), query_mask=mask)
        if isinstance(points, slice):
            points = torch.arange(length, device=tokens.device)[points]
        check_points(points)
        if points.is_floating_point():
            raise ValueError("points of a text are integers, its positions; got coordinates")
        check_indices(points, length)
        query_mask = None if mask is None else mask.take_along_dim(points.long().expand(len(mask), -1), dim=1)
        return self.decode(encoding, points=points, query_mask=query_mask)
