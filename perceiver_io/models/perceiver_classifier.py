"""The original Perceiver, a classifier.

Paper: "Perceiver: General Perception with Iterative Attention" (Jaegle et al., 2021).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.decoder import ProjectionDecoder
from perceiver_io.models.config import EncoderConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.position_encoding import FourierPositionEncoding
from perceiver_io.preprocessors import Preprocessor


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceiverClassifierConfig(EncoderConfig):
    """Sizes of a `PerceiverClassifier`; the defaults are the paper's for ImageNet.

    Every block follows a cross-attention; the first of these has weights of its own (paper, section 3.2).

    Attributes:
        num_classes: number of classes.
        inputs: "grid" for arrays whose axes are positions, such as pictures, or "points" for coordinates.
        index_dims: sizes of the input's axes, any number of them; inputs may have other sizes. Of "points", the number
            of these alone.
        patch_size: neighbours that become one input, per axis of `index_dims`; its length is the number of axes.
        num_input_channels: channels of the input; the coordinates of a point.
        num_bands: frequencies per axis of the Fourier encoding.
        max_resolution: twice the highest frequency, per axis or coordinate.
    """

    num_cross_attends: int = 8
    share_first_cross_attend: bool = False
    num_classes: int = 1000
    inputs: Literal["grid", "points"] = "grid"
    index_dims: tuple[int, ...] = (224, 224)
    patch_size: tuple[int, ...] = (1, 1)
    num_input_channels: int = 3
    num_bands: int = 64
    max_resolution: tuple[int, ...] = (224, 224)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("inputs", ("grid", "points"))
        axes = len(self.index_dims)
        if len(self.patch_size) != axes:
            raise ValueError(
                f"patch_size {self.patch_size} must have an entry per axis of index_dims {self.index_dims}"
            )
        if any(size % patch for size, patch in zip(self.index_dims, self.patch_size, strict=True)):
            raise ValueError(f"patch_size {self.patch_size} must divide index_dims {self.index_dims}, axis by axis")
        if self.inputs == "points" and (axes, *self.patch_size) != (1, 1):
            raise ValueError(
                f"inputs 'points' have one axis, and no patches: index_dims {self.index_dims} must be their number "
                f"alone, patch_size {self.patch_size} be (1,)"
            )
        coordinates = self.num_input_channels if self.inputs == "points" else axes
        if len(self.max_resolution) != coordinates:
            raise ValueError(
                f"max_resolution {self.max_resolution} must have {coordinates} entries, one per "
                f"{'coordinate' if self.inputs == 'points' else 'axis of index_dims'}"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pictures that a model of pictures is prepared for.

        Raises:
            ValueError: the inputs are no pictures.
        """
        if self.inputs != "grid" or len(self.index_dims) != 2 or self.num_input_channels != 3:
            raise ValueError(
                f"the model reads inputs of {self.num_input_channels} channels and sizes {self.index_dims} "
                f"({self.inputs!r}); pictures have 3 channels and 2 sizes: choose a model of pictures"
            )
        height, width = self.index_dims
        return height, width


class PerceiverClassifier(PerceiverIO):
    """Maps arrays with any number of axes, or clouds of points, to class logits.

    Latents attend to the inputs, then to one another, again and again; their mean is mapped to logits by a linear
    layer. DEVIATION: the paper leaves the head's start open; it is zeros, as in the reference's `ProjectionDecoder`.
    """

    config: PerceiverClassifierConfig

    def __init__(self, config: PerceiverClassifierConfig) -> None:
        preprocessor = _grid(config) if config.inputs == "grid" else Preprocessor(_Points(config))
        super().__init__(
            input_preprocessor=preprocessor,
            encoder=config.encoder(preprocessor.num_channels),
            decoder=ProjectionDecoder(config.num_latent_channels, config.num_classes),
        )
        self.config = config

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self, inputs: Float[Tensor, "batch channels *index_dims"]
    ) -> Float[Tensor, "batch classes"]:
        """Maps inputs to logits.

        Args:
            inputs: channels first, as `torch.nn` has them: pictures [batch, channels, height, width], films [batch,
                channels, time, height, width], sound [batch, channels, samples]; points [batch, coordinates, points],
                with coordinates nominally in -1…1.

        Raises:
            ValueError: for another number of axes or channels, or sizes that patches do not divide.
        """
        config = self.config
        if inputs.ndim != 2 + len(config.index_dims) or inputs.shape[1] != config.num_input_channels:
            raise ValueError(
                f"inputs {tuple(inputs.shape)} must be [batch, {config.num_input_channels}, …] with "
                f"{len(config.index_dims)} axes after the channels, as index_dims {config.index_dims} has"
            )
        return super().forward(inputs)


class ArrayPatches(nn.Module):
    """Maps arrays with any number of axes to their patches, channels last.

    Args:
        in_channels: channels of the arrays.
        patch_size: size of a patch, per axis.
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.num_channels = in_channels
        for size in self.patch_size:
            self.num_channels *= size

    def forward(self, arrays: Float[Tensor, "batch channels *index_dims"]) -> Float[Tensor, "batch *grid features"]:
        """Cuts patches; the features of one are its places in row-major order, the channels of a place together.

        Raises:
            ValueError: if the patches do not divide the sizes.
        """
        x = arrays.movedim(1, -1)
        for axis, size in enumerate(self.patch_size):
            if x.shape[1 + axis] % size:
                raise ValueError(
                    f"patch_size {self.patch_size} must divide inputs of sizes {tuple(arrays.shape[2:])}; "
                    "cut or pad them"
                )
        if all(size == 1 for size in self.patch_size):
            return x
        for axis, size in enumerate(self.patch_size):
            # [B, *grid so far, axis, …, *patch so far] -> the axis's patch goes behind the others, before the channels
            x = x.unflatten(1 + axis, (-1, size)).movedim(2 + axis, -2)
        return x.flatten(-1 - len(self.patch_size))


class _Points(nn.Module):
    """Maps the coordinates of points to their Fourier features, which is all that there is about a point."""

    def __init__(self, config: PerceiverClassifierConfig) -> None:
        super().__init__()
        self.encoding = FourierPositionEncoding(
            (1,) * config.num_input_channels, num_bands=config.num_bands, max_resolution=config.max_resolution
        )
        self.num_channels = self.encoding.num_channels

    def forward(self, points: Float[Tensor, "batch coordinates points"]) -> Float[Tensor, "batch points features"]:
        """Encodes the coordinates."""
        encoded: Tensor = self.encoding(points.transpose(1, 2))
        return encoded


def _grid(config: PerceiverClassifierConfig) -> Preprocessor:
    grid = [size // patch for size, patch in zip(config.index_dims, config.patch_size, strict=True)]
    return Preprocessor(
        ArrayPatches(config.num_input_channels, config.patch_size),
        FourierPositionEncoding(grid, num_bands=config.num_bands, max_resolution=config.max_resolution),
    )
