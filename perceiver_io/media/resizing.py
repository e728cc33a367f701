"""Resizing of 8-bit pictures as OpenCV does it, without OpenCV."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from perceiver_io.media.arrays import check_pixels

Interpolation = Literal["linear", "cubic"]

# OpenCV rounds the linear weights of 8-bit pictures to multiples of 1/2048.
_LINEAR_STEPS = np.float32(2048)


def resize(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int], interpolation: Interpolation
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Maps a picture to one of another size, as `cv2.resize` gives it for 8-bit pixels (no antialiasing).

    The colabs resize with OpenCV, whose cubic kernel (a = -0.75) and rounding differ from those of Pillow
    and torch. Linear results equal OpenCV's bit for bit. Cubic ones are rounded from exact arithmetic, as its
    x86 packages do; other builds round the weights too, which moves some values by one grey level.

    Args:
        image: any number of channels.
        size: (height, width) of the result in pixels, at least 1 each.
        interpolation: "linear" for cv2.INTER_LINEAR, "cubic" for cv2.INTER_CUBIC.

    Raises:
        ValueError: the picture is not of 8-bit pixels, or a side of it or of the result is below 1.
    """
    check_pixels(image, "the picture")
    height, width = image.shape[:2]
    if min(height, width, *size) < 1:
        raise ValueError(f"cannot resize {height}×{width} pixels to {size[0]}×{size[1]}; every side must be at least 1")
    if (height, width) == size:
        return image.copy()
    return _resize_cubic(image, size) if interpolation == "cubic" else _resize_linear(image, size)


def _positions(old: int, new: int) -> Float[np.ndarray, " new"]:
    """Maps the output pixels of an axis to the places of their centres among the centres of the input pixels."""
    return (np.arange(new) + 0.5) * (old / new) - 0.5


def _resize_cubic(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    mixed = image  # 8-bit until the first weights meet it: a copy in float64 of a photograph takes gigabytes
    for axis in (1, 0):
        old, new = image.shape[axis], size[axis]
        position = _positions(old, new)
        first = np.floor(position).astype(np.int64)
        taps = []
        for pixel in (first - 1, first, first + 1, first + 2):
            weight = np.expand_dims(_cubic_weight(position - pixel), (1 - axis, 2))
            # Pixels outside the picture repeat its border.
            taps.append(weight * mixed.take(pixel.clip(0, old - 1), axis=axis))
        mixed = taps[0] + taps[1] + taps[2] + taps[3]
    result: UInt8[np.ndarray, "new_height new_width channels"] = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return result


def _cubic_weight(offset: Float[np.ndarray, " new"]) -> Float[np.ndarray, " new"]:
    """Maps the offset from a pixel's centre, in pixels, to its weight in Keys' cubic convolution with a = -0.75."""
    a, t = -0.75, np.abs(offset)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    weight: Float[np.ndarray, " new"] = np.where(t <= 1, near, far)
    return weight


def _resize_linear(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    height, width = image.shape[:2]
    if (height, width) == (2 * size[0], 2 * size[1]):
        # OpenCV averages each 2×2 block when both sides are halved.
        corners = image[0::2, 0::2], image[0::2, 1::2], image[1::2, 0::2], image[1::2, 1::2]
        block = np.add.reduce([corner.astype(np.int32) for corner in corners])
        halved: UInt8[np.ndarray, "new_height new_width channels"] = ((block + 2) >> 2).astype(np.uint8)
        return halved

    position = _positions(width, size[1]).astype(np.float32)
    left = np.floor(position).astype(np.int64)
    # Beyond the outer columns' centres OpenCV gives the whole weight to one pixel. For rows it lets two
    # weights meet the same pixel instead, which differs by the bits dropped below.
    position = np.where((left < 0) | (left >= width - 1), left.clip(0, width - 1), position)
    left = left.clip(0, width - 1)
    to_left, to_right = _linear_weights(position.astype(np.float32), left)
    mixed = image[:, left] * to_left[:, None] + image[:, (left + 1).clip(max=width - 1)] * to_right[:, None]

    position = _positions(height, size[0]).astype(np.float32)
    top = np.floor(position).astype(np.int64)
    to_top, to_bottom = _linear_weights(position, top)
    # The vertical pass drops low bits so that OpenCV's products fit into 16 bits.
    upper = (mixed[top.clip(0, height - 1)] >> 4) * to_top[:, None, None] >> 16
    lower = (mixed[(top + 1).clip(0, height - 1)] >> 4) * to_bottom[:, None, None] >> 16
    result: UInt8[np.ndarray, "new_height new_width channels"] = (
        ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)
    )
    return result


def _linear_weights(
    position: Float[np.ndarray, " new"], first: Int[np.ndarray, " new"]
) -> tuple[Int[np.ndarray, " new"], Int[np.ndarray, " new"]]:
    """Maps positions, and the pixels before them, to the weights of those pixels and the next, in steps of 1/2048."""
    beyond = position - first.astype(np.float32)
    to_first = np.rint((1 - beyond) * _LINEAR_STEPS).astype(np.int32)
    to_next = np.rint(beyond * _LINEAR_STEPS).astype(np.int32)
    return to_first, to_next
