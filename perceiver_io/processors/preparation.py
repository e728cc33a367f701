"""Pixels and samples as the reference's colabs prepare them for the models."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from perceiver_io.media import resize

# Of ImageNet's training set, for values 0…1.
MEAN_RGB = (0.485, 0.456, 0.406)
STDDEV_RGB = (0.229, 0.224, 0.225)


def centre_crop(
    image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Picture → its centre, in the shape of the model's input, as ImageNet models are evaluated.

    The colab's `resize_and_center_crop` takes 7/8 (224 / 256) of the shorter side. This is the same for a
    square `size`, and 7/8 of the largest window of that shape for any other.

    Args:
        image: at least 2×2 pixels.
        size: (height, width) that the crop will be resized to; only their ratio matters.

    Raises:
        ValueError: the picture is too small to crop.
    """
    height, width = image.shape[:2]
    shape_height, shape_width = size
    shorter = min(height * shape_width, width * shape_height)
    crop_height, crop_width = 7 * shorter // (8 * shape_width), 7 * shorter // (8 * shape_height)
    if min(crop_height, crop_width) < 1:
        raise ValueError(
            f"a picture of {height}×{width} pixels is too small to crop for {shape_height}×{shape_width}; "
            "use a larger one"
        )
    top, left = (height - crop_height + 1) // 2, (width - crop_width + 1) // 2
    return image[top : top + crop_height, left : left + crop_width]


def prepare_image(
    image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int] = (224, 224)
) -> Float32[Tensor, "3 new_height new_width"]:
    """Picture → what an ImageNet model reads: cropped, resized (bicubic) and normalised.

    Args:
        image: at least 2×2 pixels.
        size: (height, width) of the model's input: `model.config.image_size`.

    Raises:
        ValueError: the picture is too small to crop, or `size` has a side below 1.
    """
    pixels = resize(centre_crop(image, size), size, "cubic")
    # In float64 and rounded once, as the colab's numpy does.
    normalised = (pixels - 255 * np.array(MEAN_RGB)) / (255 * np.array(STDDEV_RGB))
    return torch.from_numpy(normalised.astype(np.float32)).permute(2, 0, 1).contiguous()


def prepare_frame(frame: UInt8[np.ndarray, "height width 3"]) -> Float32[Tensor, "3 height width"]:
    """Frame with values 0…255 → the same size with values -1…1, as the optical flow colab's `normalize`."""
    # In float64 and rounded once, as the colab's numpy does.
    scaled = (frame / 255.0 * 2 - 1).astype(np.float32)
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def prepare_video(
    frames: UInt8[np.ndarray, "frames height width 3"],
) -> Float32[Tensor, "frames 3 height width"]:
    """Frames with values 0…255 → what the video model reads: values 0…1, channels first."""
    # In float64 and rounded once, as the colab's numpy does.
    return torch.from_numpy((frames / 255.0).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def prepare_audio(audio: Float[Tensor, "samples channels"], num_samples: int) -> Float32[Tensor, "num_samples 1"]:
    """Sound → what the video model reads: the first channel, cut or filled up with silence to a length.

    The colab, too, takes one channel and drops the others.

    Args:
        audio: values -1…1, any number of channels, any length (also none).
        num_samples: of the result: `num_frames * audio_samples_per_frame` of the model's config.
    """
    prepared = torch.zeros(num_samples, 1)
    available = audio[:num_samples, :1].float()
    prepared[: len(available)] = available
    return prepared
