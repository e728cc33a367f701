"""Frames to patches and back: space-to-depth, and the patch around each position.

Images are [batch, channels, height, width] and videos [batch, time, channels, height, width], as PyTorch has them; the
channels that an operation stacks are ordered as in the channels-last reference (time, row, column, channel; the last
runs fastest).
"""

from collections.abc import Sequence
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.convolutions import pad_same

Images = Float[Tensor, "batch channels height width"]
Videos = Float[Tensor, "batch time channels height width"]
OutImages = Float[Tensor, "batch out_channels out_height out_width"]
OutVideos = Float[Tensor, "batch out_time out_channels out_height out_width"]


def space_to_depth(
    frames: Images | Videos, spatial_block_size: int = 1, temporal_block_size: int = 1
) -> OutImages | OutVideos:
    """Maps images or videos to smaller ones whose channels hold the pixels of each block.

    Raises:
        ValueError: if a block size does not divide the size of its axis, or for another rank.
    """
    time, height, width = _frame_sizes(frames)
    for name, size, block in (
        ("time", time, temporal_block_size if frames.ndim == 5 else 1),
        ("height", height, spatial_block_size),
        ("width", width, spatial_block_size),
    ):
        if size % block:
            raise ValueError(
                f"block size ({block}) must divide the {name} ({size}) of frames {tuple(frames.shape)}; "
                "crop, pad or resize the input"
            )
    if frames.ndim == 4:
        return rearrange(frames, "b c (h dh) (w dw) -> b (dh dw c) h w", dh=spatial_block_size, dw=spatial_block_size)
    return rearrange(
        frames,
        "b (t dt) c (h dh) (w dw) -> b t (dt dh dw c) h w",
        dt=temporal_block_size,
        dh=spatial_block_size,
        dw=spatial_block_size,
    )


def reverse_space_to_depth(
    frames: Images | Videos, spatial_block_size: int = 1, temporal_block_size: int = 1
) -> OutImages | OutVideos:
    """Maps what `space_to_depth` returns to what it was given.

    Raises:
        ValueError: if the channels are no multiple of a block's size, or for another rank.
    """
    _frame_sizes(frames)
    block = spatial_block_size**2 * (temporal_block_size if frames.ndim == 5 else 1)
    if frames.shape[-3] % block:
        raise ValueError(
            f"the channels ({frames.shape[-3]}) of frames {tuple(frames.shape)} must be a multiple of a block ({block})"
        )
    if frames.ndim == 4:
        return rearrange(frames, "b (dh dw c) h w -> b c (h dh) (w dw)", dh=spatial_block_size, dw=spatial_block_size)
    return rearrange(
        frames,
        "b t (dt dh dw c) h w -> b (t dt) c (h dh) (w dw)",
        dt=temporal_block_size,
        dh=spatial_block_size,
        dw=spatial_block_size,
    )


def extract_patches(
    images: Images,
    sizes: Sequence[int],
    strides: Sequence[int] = (1, 1),
    rates: Sequence[int] = (1, 1),
    padding: Literal["VALID", "SAME"] = "VALID",
) -> OutImages:
    """Maps images to the patch around each position, stacked in the channels (row, column, channel).

    Source: the reference's `extract_patches` (after `tf.image.extract_patches`).

    Args:
        sizes: rows and columns of a patch.
        strides: rows and columns between patches.
        rates: rows and columns between the pixels of a patch (dilation).
        padding: "VALID" takes only patches inside the image; "SAME" pads with zeros as TensorFlow does.

    Raises:
        ValueError: for another padding, or if the image is smaller than a patch.
    """
    if padding not in ("VALID", "SAME"):
        raise ValueError(f"padding ({padding!r}) must be 'VALID' or 'SAME'")
    extent = [(size - 1) * rate + 1 for size, rate in zip(sizes, rates, strict=True)]
    if padding == "SAME":
        images = pad_same(images, extent, strides)
    rows, columns = (
        (size - span) // stride + 1 for size, span, stride in zip(images.shape[-2:], extent, strides, strict=True)
    )
    if rows < 1 or columns < 1:
        raise ValueError(
            f"images {tuple(images.shape)} are smaller than a patch {tuple(extent)}; "
            "use padding='SAME' or larger images"
        )
    patches = F.unfold(images, tuple(sizes), dilation=tuple(rates), stride=tuple(strides))
    return rearrange(
        patches,
        "batch (channels patch) (rows columns) -> batch (patch channels) rows columns",
        channels=images.shape[1],
        rows=rows,
    )


def patches_for_flow(frames: Videos) -> OutVideos:
    """Maps frames to the 3×3 patch around each pixel (27 channels for RGB), the border padded with zeros.

    Source: the reference's `patches_for_flow`.
    """
    patches = extract_patches(F.pad(frames.flatten(0, 1), (1, 1, 1, 1)), sizes=(3, 3))
    return patches.unflatten(0, frames.shape[:2])


def _frame_sizes(frames: Tensor) -> tuple[int, int, int]:
    """Time (1 for images), height and width; rejects other ranks."""
    if frames.ndim not in (4, 5):
        raise ValueError(
            f"frames {tuple(frames.shape)} must be images [batch, channels, height, width] "
            "or videos [batch, time, channels, height, width]"
        )
    return (frames.shape[1] if frames.ndim == 5 else 1), frames.shape[-2], frames.shape[-1]
