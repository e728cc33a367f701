"""Input preprocessors: raw input to the tokens that the encoder attends to.

A preprocessor is a featurizer (what is at a position) joined with a position encoding (where that is). Featurizers map
raw input to features with channels last, [batch, *index_dims, channels]; the index dimensions are what the position
encoding encodes and what is flattened into tokens.
"""

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perceiver_io.checks import as_mask, check_floats, check_integers, is_checking
from perceiver_io.convolutions import Conv2DDownsample
from perceiver_io.initializers import haiku_linear, truncated_normal_
from perceiver_io.patches import space_to_depth
from perceiver_io.position_encoding import Points, channels_of

Image = Float[Tensor, "batch channels height width"]
Video = Float[Tensor, "batch time channels height width"]
Mask = Bool[Tensor, "batch inputs"] | Int[Tensor, "batch inputs"]


class InputTokens(NamedTuple):
    """Result of preprocessing.

    Attributes:
        tokens: [batch, inputs, channels], what the encoder attends to.
        features: [batch, inputs, feature_channels], the same tokens without position (per modality where there are
            several), for output queries that are built from inputs.
        mask: [batch, inputs], True where a token is valid; None if all are.
    """

    tokens: Tensor
    features: Tensor | dict[str, Tensor]
    mask: Tensor | None = None


class InputPreprocessor(nn.Module):
    """Base of preprocessors: maps raw input to `InputTokens`."""

    def forward(
        self,
        inputs: Tensor,
        input_mask: Mask | None = None,
        positions: Points = None,
        masked: Bool[Tensor, "batch inputs"] | None = None,
    ) -> InputTokens:
        """Preprocesses a batch.

        Args:
            inputs: raw input.
            input_mask: True where a token is valid.
            positions: where the inputs lie, if not on the grid: one set of coordinates per example.
            masked: True where a mask token replaces a token, for preprocessors that have mask tokens.

        Raises:
            ValueError: for `masked` without mask tokens, or `positions` without a position encoding.
        """
        raise NotImplementedError


class Preprocessor(InputPreprocessor):
    """Maps raw input to tokens: features joined with an encoding of their positions.

    Source: the reference's `ImagePreprocessor`, `AudioPreprocessor` and `OneHotPreprocessor`.

    Args:
        featurizer: maps raw input to [batch, *index_dims, channels]; any module with `num_channels`.
        position_encoding: encodes positions on the grid of the index dimensions; None leaves the features alone.
        concat_or_add_pos: whether the encoding is appended to the features or added to them.

    Raises:
        ValueError: if an encoding to be added has another width than the features.
    """

    def __init__(
        self,
        featurizer: nn.Module,
        position_encoding: nn.Module | None = None,
        *,
        concat_or_add_pos: Literal["concat", "add"] = "concat",
    ) -> None:
        super().__init__()
        if concat_or_add_pos not in ("concat", "add"):
            raise ValueError(f"concat_or_add_pos ({concat_or_add_pos!r}) must be 'concat' or 'add'")
        if position_encoding is not None and concat_or_add_pos == "add":
            features, positions = channels_of(featurizer), channels_of(position_encoding)
            if features != positions:
                raise ValueError(
                    f"to be added, the position encoding ({positions} channels) must be as wide as the features "
                    f"({features}); project it with ProjectedPositionEncoding or use concat_or_add_pos='concat'"
                )
        self.featurizer = featurizer
        self.position_encoding = position_encoding
        self.concat_or_add_pos = concat_or_add_pos

    @property
    def num_channels(self) -> int:
        """Channels of a token."""
        features = channels_of(self.featurizer)
        if self.position_encoding is None or self.concat_or_add_pos == "add":
            return features
        return features + channels_of(self.position_encoding)

    def forward(
        self,
        inputs: Tensor,
        input_mask: Mask | None = None,
        positions: Points = None,
        masked: Bool[Tensor, "batch inputs"] | None = None,
    ) -> InputTokens:
        """Preprocesses a batch; `inputs` is what the featurizer takes."""
        _refuse_masking(masked)
        grid = self.featurizer(inputs)
        if is_checking() and not (grid.is_floating_point() and grid.ndim >= 3):
            raise ValueError(
                f"{type(self.featurizer).__name__} yields {tuple(grid.shape)} of {grid.dtype}; a featurizer must yield "
                "floating-point features [batch, *index_dims, channels]"
            )
        features = grid.flatten(1, -2)  # [B, *index_dims, C] -> [B, M, C]
        if input_mask is not None:
            input_mask = as_mask("input_mask", input_mask, features.shape[:2])
        if self.position_encoding is None:
            _refuse_positions(positions)
            return InputTokens(features, features, input_mask)
        encoding = self.position_encoding(positions, grid.shape[1:-1]).to(features.dtype)
        if self.concat_or_add_pos == "add":
            return InputTokens(features + encoding, features, input_mask)
        tokens = torch.cat([features, encoding.expand(features.shape[0], -1, -1)], dim=-1)
        return InputTokens(tokens, features, input_mask)


class IdentityPreprocessor(InputPreprocessor):
    """Takes tokens [batch, inputs, channels] as they are."""

    def forward(
        self,
        inputs: Float[Tensor, "batch inputs channels"],
        input_mask: Mask | None = None,
        positions: Points = None,
        masked: Bool[Tensor, "batch inputs"] | None = None,
    ) -> InputTokens:
        """Wraps the tokens."""
        _refuse_masking(masked)
        _refuse_positions(positions)
        check_floats("inputs", inputs, ("batch", "inputs", "channels"))
        if input_mask is not None:
            input_mask = as_mask("input_mask", input_mask, inputs.shape[:2])
        return InputTokens(inputs, inputs, input_mask)


class Pixels(nn.Module):
    """Maps images or videos to their pixels, every n-th of them.

    Args:
        num_channels: channels of the images.
        spatial_downsample: keep every n-th row and column.
        temporal_downsample: keep every n-th frame.
    """

    def __init__(self, num_channels: int = 3, *, spatial_downsample: int = 1, temporal_downsample: int = 1) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.spatial_downsample = spatial_downsample
        self.temporal_downsample = temporal_downsample

    def forward(self, images: Image | Video) -> Float[Tensor, "batch *index_dims features"]:
        """Subsamples and moves the channels last."""
        _check_frames(self, images, self.num_channels)
        images = images[..., :: self.spatial_downsample, :: self.spatial_downsample]
        if images.ndim == 5:
            images = images[:, :: self.temporal_downsample]
        return images.movedim(-3, -1)


class Patches(nn.Module):
    """Maps images or videos to non-overlapping patches, optionally mixed by a linear layer.

    A time axis of one patch is dropped, so that the two frames of optical flow become one image.

    Args:
        in_channels: channels of the images.
        spatial_downsample: height and width of a patch.
        temporal_downsample: frames of a patch; videos only.
        num_channels: outputs of the linear layer; None for none.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        spatial_downsample: int = 1,
        temporal_downsample: int = 1,
        num_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        patch_channels = in_channels * spatial_downsample**2 * temporal_downsample
        self.num_channels = patch_channels if num_channels is None else num_channels
        self.spatial_downsample = spatial_downsample
        self.temporal_downsample = temporal_downsample
        self.linear = None if num_channels is None else haiku_linear(patch_channels, num_channels)

    def forward(self, images: Image | Video) -> Float[Tensor, "batch *index_dims features"]:
        """Cuts patches and moves the channels last."""
        _check_frames(self, images, self.in_channels)
        patches = space_to_depth(images, self.spatial_downsample, self.temporal_downsample).movedim(-3, -1)
        if patches.ndim == 5 and patches.shape[1] == 1:
            patches = patches.squeeze(1)
        return patches if self.linear is None else self.linear(patches)


class Conv1x1(nn.Module):
    """Maps images or videos to a linear function of each pixel, or of every n-th.

    Args:
        in_channels: channels of the images.
        num_channels: outputs per pixel.
        spatial_downsample: keep every n-th row and column.
    """

    def __init__(self, in_channels: int = 3, num_channels: int = 64, *, spatial_downsample: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_channels = num_channels
        self.spatial_downsample = spatial_downsample
        self.linear = haiku_linear(in_channels, num_channels)

    def forward(self, images: Image | Video) -> Float[Tensor, "batch *index_dims features"]:
        """Subsamples, moves the channels last and maps them."""
        _check_frames(self, images, self.in_channels)
        pixels = images[..., :: self.spatial_downsample, :: self.spatial_downsample].movedim(-3, -1)
        return self.linear(pixels)


class ConvStem(nn.Module):
    """Maps images or videos to convolutional features at a lower resolution, frame by frame.

    Args:
        in_channels: channels of the images.
        num_channels: channels of the features.
        num_layers: each downsamples by 4.
        use_batchnorm: whether batch norm follows the convolutions.
    """

    def __init__(
        self, in_channels: int = 3, num_channels: int = 64, *, num_layers: int = 1, use_batchnorm: bool = True
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_channels = num_channels if num_layers else in_channels
        self.downsample = Conv2DDownsample(
            in_channels, num_channels, num_layers=num_layers, use_batchnorm=use_batchnorm
        )

    def forward(self, images: Image | Video) -> Float[Tensor, "batch *index_dims features"]:
        """Applies the convolutions and moves the channels last."""
        _check_frames(self, images, self.in_channels)
        if images.ndim == 5:
            return self.downsample(images.flatten(0, 1)).unflatten(0, images.shape[:2]).movedim(-3, -1)
        return self.downsample(images).movedim(-3, -1)


class AudioPatches(nn.Module):
    """Maps audio to patches of consecutive samples.

    Args:
        samples_per_patch: samples of a patch.
    """

    def __init__(self, samples_per_patch: int = 96) -> None:
        super().__init__()
        self.num_channels = samples_per_patch

    def forward(self, audio: Float[Tensor, "batch samples channels"]) -> Float[Tensor, "batch patches patch"]:
        """Cuts patches; several channels are interleaved, sample by sample, as the reference does.

        Raises:
            ValueError: if the patches do not divide the samples.
        """
        check_floats("audio", audio, ("batch", "samples", "channels"))
        samples = audio.shape[1] * audio.shape[2]
        if samples % self.num_channels:
            raise ValueError(
                f"samples_per_patch ({self.num_channels}) must divide the samples ({samples}) of audio "
                f"{tuple(audio.shape)}; cut or pad the audio"
            )
        return rearrange(audio.flatten(1), "batch (patches patch) -> batch patches patch", patch=self.num_channels)


class OneHot(nn.Module):
    """Maps a one-hot (or any) vector to a single token.

    Source: the reference's `OneHotPreprocessor`.

    Args:
        num_channels: length of the vector.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, vectors: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch 1 channels"]:
        """Adds an index dimension of one."""
        check_floats("vectors", vectors, ("batch", self.num_channels))
        return vectors.unsqueeze(1)


class ByteEmbedding(nn.Module):
    """Maps bytes (or any token ids) to trained vectors.

    Source: `haiku.Embed` with its default initialiser, as the reference's language model uses it.

    Args:
        vocab_size: number of ids.
        num_channels: channels of a vector.
    """

    def __init__(self, vocab_size: int, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.weight = nn.Parameter(truncated_normal_(torch.empty(vocab_size, num_channels), std=1.0))

    def forward(self, ids: Int[Tensor, "batch sequence"]) -> Float[Tensor, "batch sequence channels"]:
        """Looks the vectors up.

        Raises:
            ValueError: for ids that are not integers in 0…vocab_size - 1.
        """
        check_integers("token ids", ids, ("batch", "sequence"), len(self.weight))
        return nn.functional.embedding(ids.long(), self.weight)


def _check_frames(featurizer: nn.Module, frames: Tensor, channels: int) -> None:
    """Checks images [batch, channels, height, width] or videos [batch, time, channels, height, width]."""
    dtype = next((parameter.dtype for parameter in featurizer.parameters()), None)
    time = ("time",) if isinstance(frames, Tensor) and frames.ndim == 5 else ()
    check_floats("images" if not time else "video", frames, ("batch", *time, channels, "height", "width"), dtype)


def _refuse_positions(positions: Points) -> None:
    if positions is not None:
        raise ValueError(
            "positions must be None where no position encoding takes them; give the Preprocessor a position_encoding "
            "or leave them out"
        )


def _refuse_masking(masked: Tensor | None) -> None:
    if masked is not None:
        raise ValueError(
            "masked names tokens that a mask token replaces, and there is none; give a dict of preprocessors with "
            "mask_probs (MultimodalPreprocessor) or leave it out"
        )
