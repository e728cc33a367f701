"""ImageNet classification with three kinds of image input (paper, section 4.6 and supplement H)."""

import dataclasses
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.checks import check_floats
from perceiver_io.models.config import DecoderConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.position_encoding import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
    ProjectedPositionEncoding,
)
from perceiver_io.postprocessors import FirstOutputPostprocessor
from perceiver_io.preprocessors import Conv1x1, ConvStem, Pixels, Preprocessor
from perceiver_io.queries import PositionQuery


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassificationConfig(DecoderConfig):
    """Sizes and variant of an `ImageClassificationPerceiver`; the defaults are the released Fourier model's.

    Attributes:
        num_classes: number of classes.
        image_size: height and width in pixels; with Fourier positions only the size that is prepared for.
        featurizer: "pixels", "conv1x1" (a linear function of each pixel) or "conv" (a convolution stem that downsamples
            by 4).
        position_encoding: "fourier", or "learned" and projected.
        num_bands: frequencies per axis of the Fourier encoding.
        max_resolution: resolution per axis up to which Fourier features tell positions apart, after the featurizer.
        featurizer_channels: channels after "conv1x1" and "conv".
        position_channels: channels of the learned encoding, before and after its projection.
        num_image_channels: channels of an image.
        query_channels: channels of the decoder's one query; None for the latents' width.
        decoder_query_residual: whether the decoder adds its query to what that attended to.
    """

    num_classes: int = 1000
    image_size: tuple[int, int] = (224, 224)
    featurizer: Literal["conv", "pixels", "conv1x1"] = "pixels"
    position_encoding: Literal["fourier", "learned"] = "fourier"
    num_bands: int = 64
    max_resolution: tuple[int, int] = (224, 224)
    featurizer_channels: int = 64
    position_channels: int = 256
    num_image_channels: int = 3
    query_channels: int | None = None
    decoder_query_residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("featurizer", ("conv", "pixels", "conv1x1"))
        self.check_choice("position_encoding", ("fourier", "learned"))


class ImageClassificationPerceiver(PerceiverIO):
    """Maps images to class logits. Source: the reference's `imagenet_classification` colab."""

    def __init__(self, config: ImageClassificationConfig) -> None:
        preprocessor = Preprocessor(_featurizer(config), _position_encoding(config))
        query_channels = config.query_channels or config.num_latent_channels
        super().__init__(
            input_preprocessor=preprocessor,
            encoder=config.encoder(preprocessor.num_channels),
            output_query=PositionQuery(LearnedPositionEncoding(1, query_channels)),
            decoder=config.decoder(query_channels, config.num_classes),
            output_postprocessor=FirstOutputPostprocessor(),
        )
        self.config = config

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Maps normalised images to logits; with Fourier positions they may have any size.

        Raises:
            ValueError: if they are not of the model's precision, or if positions were learned for another size.
        """
        size = self.config.image_size if self.config.position_encoding == "learned" else ("height", "width")
        check_floats("images", images, ("batch", self.config.num_image_channels, *size), self.dtype)
        return super().forward(images)


def _featurizer(config: ImageClassificationConfig) -> nn.Module:
    match config.featurizer:
        case "pixels":
            return Pixels(config.num_image_channels)
        case "conv1x1":
            return Conv1x1(config.num_image_channels, config.featurizer_channels)
        case "conv":
            return ConvStem(config.num_image_channels, config.featurizer_channels)


def _position_encoding(config: ImageClassificationConfig) -> nn.Module:
    stride = 4 if config.featurizer == "conv" else 1
    height, width = (-(-size // stride) for size in config.image_size)  # SAME padding rounds up
    match config.position_encoding:
        case "fourier":
            return FourierPositionEncoding(
                (height, width), num_bands=config.num_bands, max_resolution=config.max_resolution
            )
        case "learned":
            learned = LearnedPositionEncoding(height * width, config.position_channels)
            return ProjectedPositionEncoding(learned, config.position_channels)
