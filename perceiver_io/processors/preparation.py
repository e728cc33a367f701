"""Pixels and samples as the reference's colabs prepare them for the models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from perceiver_io.media import resize, sound_samples
from perceiver_io.processors.pictures import to_picture, to_video

# Of ImageNet's training set, for values 0…1.
MEAN_RGB = (0.485, 0.456, 0.406)
STDDEV_RGB = (0.229, 0.224, 0.225)


def centre_crop(picture: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Cuts out a picture's centre, in the shape of the model's input, as ImageNet models are evaluated.

    The colab's `resize_and_center_crop` takes 7/8 (224 / 256) of the shorter side. This is the same for a
    square `size`, and 7/8 of the largest window of that shape for any other.

    Args:
        picture: [height, width, 3], at least 2×2 pixels, or a picture in any other form (see `to_pixels`).
        size: (height, width) that the crop will be resized to; only their ratio matters.

    Raises:
        ValueError: not a picture, one too small to crop, or `size` has a side below 1.
    """
    image = to_picture(picture)
    top, left, height, width = centre_window(image.shape[0], image.shape[1], size)
    return image[top : top + height, left : left + width]


def centre_window(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Maps a picture's size to what `centre_crop` cuts out: the first row and column, height and width.

    Raises:
        ValueError: the picture is too small to crop, or `size` has a side below 1.
    """
    shape_height, shape_width = size
    if min(size) < 1:
        raise ValueError(f"cannot crop for {shape_height}×{shape_width} pixels; every side must be at least 1")
    shorter = min(height * shape_width, width * shape_height)
    crop_height, crop_width = 7 * shorter // (8 * shape_width), 7 * shorter // (8 * shape_height)
    if min(crop_height, crop_width) < 1:
        raise ValueError(
            f"a picture of {height}×{width} pixels is too small to crop for {shape_height}×{shape_width}; "
            "use a larger one"
        )
    return (height - crop_height + 1) // 2, (width - crop_width + 1) // 2, crop_height, crop_width


def prepare_image(picture: Any, size: tuple[int, int] = (224, 224)) -> Float32[Tensor, "3 new_height new_width"]:
    """Maps a picture to what an ImageNet model reads: cropped, resized (bicubic) and normalised.

    Args:
        picture: [height, width, 3], at least 2×2 pixels, or a picture in any other form (see `to_pixels`).
        size: (height, width) of the model's input: `model.config.image_size`.

    Raises:
        ValueError: not a picture, one too small to crop, or `size` has a side below 1.
    """
    pixels = resize(centre_crop(picture, size), size, "cubic")
    # In float64 and rounded once, as the colab's numpy does.
    normalised = (pixels - 255 * np.array(MEAN_RGB)) / (255 * np.array(STDDEV_RGB))
    return torch.from_numpy(normalised.astype(np.float32)).permute(2, 0, 1).contiguous()


def prepare_frame(frame: Any) -> Float32[Tensor, "3 height width"]:
    """Maps a frame to the same size with values -1…1, as the optical flow colab's `normalize`.

    Args:
        frame: [height, width, 3], or a picture in any other form (see `to_pixels`).

    Raises:
        ValueError: not a picture.
    """
    # In float64 and rounded once, as the colab's numpy does.
    scaled = (to_picture(frame) / 255.0 * 2 - 1).astype(np.float32)
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def prepare_video(frames: Any) -> Float32[Tensor, "frames 3 height width"]:
    """Maps frames to what the video model reads: values 0…1, channels first.

    Args:
        frames: [frames, height, width, 3], or what else `to_video` takes.

    Raises:
        ValueError: not a video.
    """
    # In float64 and rounded once, as the colab's numpy does.
    return torch.from_numpy((to_video(frames) / 255.0).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def prepare_audio(sound: Any, num_samples: int) -> Float32[Tensor, "num_samples 1"]:
    """Maps sound to what the video model reads: the first channel, cut or filled up with silence to a length.

    The colab, too, takes one channel and drops the others.

    Args:
        sound: [samples, channels] of values -1…1, also none, or what else `sound_samples` takes.
        num_samples: of the result: `num_frames * audio_samples_per_frame` of the model's config.

    Raises:
        ValueError: not a sound, or `num_samples` is below 0.
    """
    if num_samples < 0:
        raise ValueError(f"num_samples ({num_samples}) must be at least 0")
    prepared = torch.zeros(num_samples, 1)
    available = sound_samples(sound)[:num_samples, :1]
    prepared[: len(available)] = available
    return prepared
