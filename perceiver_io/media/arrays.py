"""Arrays in whatever form they come, as 8-bit pixels or floating samples.

Values that can mean one thing only are converted. Anything else is an error that says what was given, what is wanted,
and how to get there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

# A sound track has no more channels. FFmpeg's layouts end there, too.
MAX_CHANNELS = 64
# Decoders overshoot full scale, and floating files may be louder; 16-bit samples made floating are far beyond.
_LOUDEST = 16.0


def is_array(value: object) -> bool:
    """Says whether a value is an array, a tensor, or numbers in lists."""
    return isinstance(value, np.ndarray | Tensor) or (isinstance(value, list | tuple) and _is_numbers(value))


def _is_numbers(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and _is_numbers(value[0])
    return isinstance(value, int | float | np.number)


def as_array(value: Any) -> tuple[np.ndarray, str]:
    """Maps an array, a tensor or numbers in lists to an array of the machine's own byte order, and words for it.

    Raises:
        ValueError: something else, or lists of different lengths.
    """
    if isinstance(value, Tensor):
        given = f"a tensor of shape {tuple(value.shape)}"
        if value.device.type == "meta" or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{given} has no plain values; give a dense tensor on the CPU")
        values = value.detach().cpu().resolve_conj().resolve_neg()
        # NumPy has no bfloat16 nor 8-bit floats.
        return (
            values.float() if values.is_floating_point() and values.dtype != torch.float64 else values
        ).numpy(), given
    if hasattr(value, "getexif"):  # an array of a PIL image may hold indices of a palette
        raise ValueError("a PIL image is not an array; perceiver_io.media.image_pixels reads it")
    try:
        array = np.asarray(value)
    except Exception as error:  # lists of different lengths, or whatever an object's own conversion raises
        raise ValueError(f"a {type(value).__name__} cannot be read as an array ({error}); give numbers") from error
    kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    given = f"{kind} of shape {array.shape}"
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{given} has values of type {array.dtype}; give numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False), given


def picture_pixels(picture: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Maps one picture to its 8-bit RGB pixels.

    Args:
        picture: an array, a tensor or lists of numbers, with 3 channels last or first, or grey with one or without that
            axis. Whole numbers are 0…255, True is white. Floating values are 0…1 and are rounded to 256 steps, since
            the reference prepares 8-bit pictures.

    Raises:
        ValueError: another shape, one that can be read in two ways, or values outside these ranges.
    """
    array, given = as_array(picture)
    return eight_bits(_channels_last(array, given, isinstance(picture, Tensor)), given)


def video_pixels(video: Any) -> UInt8[np.ndarray, "frames height width 3"]:
    """Maps a video to the 8-bit RGB pixels of its frames.

    Args:
        video: an array, a tensor or lists of numbers with frames first, each frame as in `picture_pixels`.

    Raises:
        ValueError: no frames, or what `picture_pixels` refuses.
    """
    array, given = as_array(video)
    wanted = "[frames, 3, height, width]" if isinstance(video, Tensor) else "[frames, height, width, 3]"
    if array.ndim != 4 or not len(array):
        raise ValueError(f"{given} is not a video; it must be {wanted}")
    axis = _channel_axis(array.shape[1:], given, isinstance(video, Tensor))
    array = array[..., None] if axis is None else np.moveaxis(array, axis + 1, -1)
    return eight_bits(np.broadcast_to(array, (*array.shape[:3], 3)), given)


def _channels_last(array: np.ndarray, given: str, is_tensor: bool) -> np.ndarray:
    axis = _channel_axis(array.shape, given, is_tensor)
    array = array[..., None] if axis is None else np.moveaxis(array, axis, -1)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _channel_axis(shape: tuple[int, ...], given: str, is_tensor: bool) -> int | None:
    """The axis of a picture's channels: 0, 2, or None for grey without that axis.

    Raises:
        ValueError: there is none, or both could be.
    """
    usual, other = (0, 2) if is_tensor else (2, 0)
    wanted = "[3, height, width]" if is_tensor else "[height, width, 3]"
    if len(shape) in (2, 3) and 0 not in shape:
        if len(shape) == 2:
            return None
        if shape[usual] == 3 or (shape[usual] == 1 and shape[other] != 3):
            return usual
        if shape[usual] == 1:
            raise ValueError(f"{given} can be read with channels first or last; say which: give {wanted}")
        if shape[other] in (1, 3):
            return other
    raise ValueError(
        f"{given} is not a picture; it must be {wanted}, or [height, width] if it is grey"
        + ("; leave out the fourth channel" if len(shape) == 3 and 4 in (shape[0], shape[2]) else "")
    )


def eight_bits(values: np.ndarray, given: str) -> UInt8[np.ndarray, "*shape"]:
    """Maps values of a picture to 0…255.

    Args:
        given: words for what the user gave, for errors.

    Raises:
        ValueError: values that are neither whole 0…255, nor floating 0…1.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    lowest, highest = values.min(), values.max()
    found = f"{given} has values {lowest:.4g} to {highest:.4g}"
    if values.dtype.kind == "f":
        scaled = np.rint(values.astype(np.promote_types(values.dtype, np.float32), copy=False) * 255)
        # Rounding errors of a resizing beyond 0 and 1 are none.
        if not (scaled.min() >= 0 and scaled.max() <= 255):
            way_out = "divide by 255" if 1 < highest <= 255 and lowest >= 0 else "scale them"
            raise ValueError(f"{found}; floating values must be 0…1: {way_out}, or give uint8 0…255")
        return scaled.astype(np.uint8)
    if not (lowest >= 0 and highest <= 255):
        raise ValueError(
            f"{found} of type {values.dtype}; whole numbers must be 0…255: scale them, or give floating 0…1"
        )
    if highest == 1:
        raise ValueError(
            f"{found} of type {values.dtype}, which may mean 0…1 or 0…255; give bool, floating 0…1, or uint8 0…255"
        )
    return values.astype(np.uint8)


def check_pixels(pixels: Any, name: str, axes: int = 3) -> None:
    """Checks that an array is of 8-bit pixels, with 3 axes, or 4 with frames in front.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != axes:
        kind = f"{pixels.dtype} {tuple(pixels.shape)}" if hasattr(pixels, "shape") else f"a {type(pixels).__name__}"
        wanted = "[frames, height, width, 3]" if axes == 4 else "[height, width, channels]"
        way_out = "video_pixels" if axes == 4 else "picture_pixels"
        raise ValueError(
            f"{name} must be an array of uint8 {wanted}, not {kind}; perceiver_io.media.{way_out} converts what it can"
        )


def sound_samples(sound: Any) -> Float32[Tensor, "samples channels"]:
    """Maps a sound to its samples, -1…1.

    Args:
        sound: an array, a tensor or numbers in lists, [samples, channels] or [samples], floating -1…1 or 16-bit
            integers, which are divided by 2^15. [channels, samples] is turned where it can be nothing else.

    Raises:
        ValueError: another shape, one that can be read in two ways, or values of another type or far beyond -1…1.
    """
    array, given = as_array(sound)
    if array.dtype.kind == "f":
        samples = np.asarray(array, np.float32)
    elif array.dtype == np.int16:
        samples = array.astype(np.float32) / np.float32(2**15)
    else:
        raise ValueError(
            f"{given} has samples of type {array.dtype}; give floating -1…1 (divide by the full scale), or int16"
        )
    samples = _samples_first(samples, given)
    if samples.size:
        lowest, highest = samples.min(), samples.max()
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise ValueError(f"{given} has samples that are not finite; samples must be -1…1")
        if max(-lowest, highest) > _LOUDEST:
            raise ValueError(
                f"{given} has samples {lowest:.4g} to {highest:.4g}; floating samples must be -1…1: divide by the full "
                "scale (2**15 for 16 bits)"
            )
    return torch.from_numpy(samples.copy() if samples is array or samples.base is not None else samples)


def _samples_first(samples: np.ndarray, given: str) -> np.ndarray:
    """Samples with their channels last.

    Raises:
        ValueError: they have other axes, or could be read in two ways.
    """
    if samples.ndim == 1:
        return samples[:, None]
    if samples.ndim == 2:
        first, last = samples.shape
        if last and (first == 0 or last <= min(first, MAX_CHANNELS)):
            return samples
        if 0 < first <= MAX_CHANNELS < last:
            return np.ascontiguousarray(samples.T)
    raise ValueError(
        f"{given} is not a sound; it must be [samples, channels] with at most {MAX_CHANNELS} channels, or [samples]"
        + ("; if channels come first, turn it: sound.T" if samples.ndim == 2 else "")
    )
