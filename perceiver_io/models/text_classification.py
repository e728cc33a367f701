"""Classification of text: the paper's fine-tuned language model, with one output (paper, section 4.1)."""

import dataclasses

from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_io.models.language import TextConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.postprocessors import FirstOutputPostprocessor, TanhHeadPostprocessor
from perceiver_io.queries import PositionQuery


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassificationConfig(TextConfig):
    """Sizes of a `TextClassificationPerceiver`; by default the released language model's, and two classes.

    Attributes:
        num_classes: number of classes; 1 for a regression.
        query_channels: channels of the decoder's one query; None for the latents' width.
        decoder_query_residual: whether the decoder adds its query to what that attended to.
        head_channels: width between the two layers of a head with a tanh, as the paper fine-tunes on GLUE; None for a
            single layer.
    """

    num_classes: int = 2
    query_channels: int | None = None
    decoder_query_residual: bool = True
    head_channels: int | None = None


class TextClassificationPerceiver(PerceiverIO):
    """Maps bytes to class logits.

    Source: transformers' `PerceiverForSequenceClassification`; the reference released no such model.
    """

    config: TextClassificationConfig

    def __init__(self, config: TextClassificationConfig) -> None:
        query_channels = config.query_channels or config.num_latent_channels
        head = config.head_channels
        super().__init__(
            input_preprocessor=config.text_preprocessor(),
            encoder=config.encoder(
                config.embed_channels,
                qk_channels=config.qk_channels,
                v_channels=None if config.qk_channels is None else config.num_latent_channels,
            ),
            output_query=PositionQuery(LearnedPositionEncoding(1, query_channels)),
            decoder=config.decoder(query_channels, config.num_classes if head is None else None),
            output_postprocessor=FirstOutputPostprocessor()
            if head is None
            else TanhHeadPostprocessor(query_channels, head, config.num_classes),
        )
        self.config = config

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self,
        tokens: Int[Tensor, "batch sequence"],
        mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Maps token ids to logits.

        Args:
            tokens: ids in 0…vocab_size - 1; at most max_seq_len of them.
            mask: True where a token is valid.

        Raises:
            ValueError: if the sequence is too long, an id is out of range, or the mask is not of the tokens' shape.
        """
        mask = self.config.check_tokens(tokens, mask)
        return super().forward(tokens, mask)
