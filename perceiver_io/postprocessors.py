"""Output postprocessors: decoder outputs to what a task wants."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.convolutions import Conv2DUpsample, Conv3DUpsample
from perceiver_io.initializers import haiku_linear
from perceiver_io.patches import reverse_space_to_depth
from perceiver_io.preprocessors import ByteEmbedding


class OutputPostprocessor(nn.Module):
    """Base of postprocessors: maps decoder outputs [batch, outputs, channels] to a result.

    Attributes:
        pointwise: whether outputs are treated one by one and keep their order along dimension 1. If so the
            postprocessor is applied chunk by chunk; if not, once, to all outputs.
    """

    pointwise: bool = False

    def forward(self, outputs: Tensor) -> Tensor:
        """Postprocesses outputs."""
        raise NotImplementedError

    def over_chunks(self, chunks: Iterable[tuple[Any, Tensor]]) -> Tensor:
        """Postprocesses chunks of outputs, each with the points that it was decoded at."""
        if self.pointwise:
            return concatenate([self(outputs) for _, outputs in chunks])
        return self(concatenate([outputs for _, outputs in chunks]))


class ModulePostprocessor(OutputPostprocessor):
    """Lets any module serve as a postprocessor; it runs once, on all outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, outputs: Tensor) -> Tensor:
        """Applies the module."""
        return self.module(outputs)


class IdentityPostprocessor(OutputPostprocessor):
    """Returns the outputs as they are. Source: the reference's `IdentityPostprocessor`."""

    pointwise = True

    def forward(self, outputs: Tensor) -> Tensor:
        """Returns the outputs."""
        return outputs


class ProjectionPostprocessor(OutputPostprocessor):
    """Maps each output to a linear function of it. Source: the reference's `ProjectionPostprocessor`.

    Args:
        in_channels: channels of an output.
        out_channels: channels of the result.
    """

    pointwise = True

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = haiku_linear(in_channels, out_channels)

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch outputs out_channels"]:
        """Projects each output."""
        return self.linear(outputs)


class FirstOutputPostprocessor(OutputPostprocessor):
    """Maps a single output to the vector that it is, as the reference's `ClassificationDecoder` does."""

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch channels"]:
        """Takes the first output."""
        return outputs[:, 0]


class ClassificationPostprocessor(OutputPostprocessor):
    """Maps a single output to class logits. Source: the reference's `ClassificationPostprocessor`.

    Args:
        in_channels: channels of an output.
        num_classes: number of classes.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = haiku_linear(in_channels, num_classes)

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch classes"]:
        """Projects the first output."""
        return self.linear(outputs[:, 0])


class TanhHeadPostprocessor(OutputPostprocessor):
    """Maps a single output to class logits by two layers with a tanh between them, as the paper fine-tunes on GLUE.

    Args:
        in_channels: channels of an output.
        hidden_channels: width of the layer between.
        num_classes: number of classes.
    """

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = haiku_linear(in_channels, hidden_channels)
        self.output = haiku_linear(hidden_channels, num_classes)

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch classes"]:
        """Classifies the first output."""
        return self.output(torch.tanh(self.hidden(outputs[:, 0])))


class AudioPostprocessor(OutputPostprocessor):
    """Maps each output to the samples of its patch, one after the other. Source: the reference's `AudioPostprocessor`.

    Args:
        in_channels: channels of an output.
        samples_per_patch: samples of a patch.
    """

    pointwise = True

    def __init__(self, in_channels: int, samples_per_patch: int = 96) -> None:
        super().__init__()
        self.linear = haiku_linear(in_channels, samples_per_patch)

    def forward(self, outputs: Float[Tensor, "batch patches channels"]) -> Float[Tensor, "batch samples"]:
        """Projects each output and joins the patches."""
        return self.linear(outputs).flatten(1)


class TiedEmbeddingPostprocessor(OutputPostprocessor):
    """Maps each output to logits: its products with the vectors that embed the input, plus a bias.

    Source: the reference's `EmbeddingDecoder`.

    Args:
        embedding: the input's embedding, which keeps owning the vectors.
    """

    pointwise = True

    def __init__(self, embedding: ByteEmbedding) -> None:
        super().__init__()
        # In a tuple, the embedding is no submodule: its weight is saved, and counted, where it is owned.
        self._tied = (embedding,)
        self.bias = nn.Parameter(torch.zeros(embedding.weight.shape[0]))

    @property
    def weight(self) -> Float[Tensor, "vocab channels"]:
        """The vectors that outputs are compared with."""
        return self._tied[0].weight

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch outputs vocab"]:
        """Compares each output with every vector."""
        return F.linear(outputs, self.weight, self.bias)


class ReshapePostprocessor(OutputPostprocessor):
    """Maps outputs to an image or video: row-major order, channels where PyTorch has them.

    Source: the reference's `ImagePostprocessor` with `pixels` and `input_reshape_size`.

    Args:
        index_dims: (height, width) or (time, height, width).
    """

    def __init__(self, index_dims: Sequence[int]) -> None:
        super().__init__()
        self.index_dims = tuple(index_dims)

    def forward(self, outputs: Float[Tensor, "batch outputs channels"]) -> Float[Tensor, "batch ..."]:
        """Reshapes to [batch, channels, height, width] or [batch, time, channels, height, width]."""
        return outputs.unflatten(1, self.index_dims).movedim(-1, -3)


class PatchesPostprocessor(OutputPostprocessor):
    """Maps images or videos whose channels hold the pixels of a patch to larger ones.

    Source: the reference's `ImagePostprocessor` with `patches`.

    Args:
        spatial_upsample: height and width of a patch.
        temporal_upsample: frames of a patch.
    """

    def __init__(self, *, spatial_upsample: int = 1, temporal_upsample: int = 1) -> None:
        super().__init__()
        self.spatial_upsample = spatial_upsample
        self.temporal_upsample = temporal_upsample

    def forward(self, frames: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Lays the patches out."""
        return reverse_space_to_depth(frames, self.spatial_upsample, self.temporal_upsample)


class Conv1x1Postprocessor(OutputPostprocessor):
    """Maps images to a linear function of each pixel, or of every n-th.

    Source: the reference's `ImagePostprocessor` with `conv1x1`. QUIRK: its `spatial_upsample` is the convolution's
    stride, so that it leaves pixels out; here that is called `stride`.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the result.
        stride: keep every n-th row and column.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.linear = haiku_linear(in_channels, out_channels)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Subsamples and maps the channels."""
        pixels = images[..., :: self.stride, :: self.stride]
        return self.linear(pixels.movedim(1, -1)).movedim(-1, 1)


class ConvUpsamplePostprocessor(OutputPostprocessor):
    """Maps images, or the frames of videos, to ones of 4 times the resolution by transposed convolutions.

    Source: the reference's `ImagePostprocessor` with `conv`.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the images.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = Conv2DUpsample(in_channels, out_channels)

    def forward(self, frames: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Applies the convolutions."""
        if frames.ndim == 5:
            return self.upsample(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.upsample(frames)


class Conv3DUpsamplePostprocessor(OutputPostprocessor):
    """Maps videos to ones of higher resolution in time and space by transposed convolutions.

    Source: the reference's `ImagePostprocessor` with `conv` and a `temporal_upsample`.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the videos.
        temporal_upsample: factor in time. QUIRK: other factors than powers of 2 count as the nearest one.
        spatial_upsample: factor in space, likewise.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, temporal_upsample: int = 2, spatial_upsample: int = 4
    ) -> None:
        super().__init__()
        self.upsample = Conv3DUpsample(
            in_channels,
            out_channels,
            num_time_upsamples=round(math.log2(temporal_upsample)),
            num_space_upsamples=round(math.log2(spatial_upsample)),
        )

    def forward(self, frames: Float[Tensor, "batch time channels height width"]) -> Float[Tensor, "batch ..."]:
        """Applies the convolutions."""
        return self.upsample(frames)


def concatenate(chunks: list[Tensor]) -> Tensor:
    """Joins chunks along dimension 1; a single one, of any rank, is returned as it is."""
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)
