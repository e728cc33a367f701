"""Frames of films as the video colab prepares them, and frames of what the model returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.media.arrays import check_pixels
from perceiver_io.media.border import UnreadableError, check_size
from perceiver_io.media.film import Clock, opened, origin, picture_track
from perceiver_io.media.resizing import resize

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

# The released model saw 25 frames a second: 1,920 samples of its 48 kHz sound go with each.
FRAME_RATE = 25
# 4 GiB: 19 minutes at the released model's size.
_MAX_BYTES = 2**32


class TooShortError(UnreadableError):
    """A film with fewer frames than are needed.

    Attributes:
        num_frames: that it has.
    """

    def __init__(self, message: str, num_frames: int) -> None:
        super().__init__(message)
        self.num_frames = num_frames


def read_video(
    path: str | Path,
    size: tuple[int, int],
    num_frames: int | None = None,
    frame_rate: int = FRAME_RATE,
    start: int = 0,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Reads the first frames of a film, centre-cropped and resized (bilinear) as by the colab's `load_video`.

    DEVIATION: the colab takes every frame of whatever rate. We take the frame that is on show at each 1/25 s, by the
    file's time stamps, so that pictures and sound stay together; for a file of 25 regular frames a second this is the
    same. AVI files have no time stamps but places for frames, of which some are empty.

    Args:
        path: a film of the usual kinds.
        size: (height, width) of the frames: `model.config.image_size`.
        num_frames: how many to read; None reads all of them.
        frame_rate: frames a second to take.
        start: the frame to begin with.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a film, a damaged one, no picture track, fewer than `num_frames` frames from `start` on, or more
            than fit into memory.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    for name, value, least in (("num_frames", num_frames, 1), ("frame_rate", frame_rate, 1), ("start", start, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} ({value}) must be at least {least}")
    most = _MAX_BYTES // max(1, 3 * size[0] * size[1])
    frames: list[UInt8[np.ndarray, "height width 3"]] = []
    seen: VideoFrame | None = None
    found = 0
    with opened(path, "video") as container:
        for found, frame in enumerate(_on_show(container, frame_rate, path), start=1):
            if found <= start:
                continue
            # A frame that stays is prepared once.
            frames.append(frames[-1] if frame is seen else fit_frame(_pixels(frame, path), size))
            seen = frame
            if len(frames) == num_frames:
                break
            if len(frames) >= most:
                raise UnreadableError(f"{path} has more than {most:,} frames of {size[0]}×{size[1]}; say num_frames")
    if len(frames) < (num_frames or 1):
        raise TooShortError(
            f"{path} has {len(frames)} frames at {frame_rate} a second{f' from frame {start} on' if start else ''}; "
            f"{num_frames or 1} are needed: give a longer video",
            found,
        )
    return np.stack(frames)


def video_duration(path: str | Path) -> float:
    """Reads the duration of a film's picture track in seconds: as its header states it, or by going through the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a film, or no picture track.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with opened(path, "video") as container:
        track = _picture_track(container, path)
        if track.duration is not None and track.duration > 0 and track.time_base is not None:
            return float(track.duration * track.time_base)
        end = start = origin(container)
        for packet in container.demux(track):
            if packet.pts is not None and packet.time_base is not None and packet.size:
                lasts = (packet.duration or 0) * packet.time_base or 1 / _rate(track)
                end = max(end, float(packet.pts * packet.time_base + lasts))
        return end - start


def _picture_track(container: InputContainer, path: str | Path) -> VideoStream:
    track = picture_track(container)
    if track is None:
        raise UnreadableError(f"{path} has no picture track; give a video file")
    check_size(path, track.height or 1, track.width or 1)
    return track


def _rate(track: VideoStream) -> float:
    """Frames a second, as far as the file says."""
    return float(track.average_rate or track.guessed_rate or FRAME_RATE)


def _on_show(container: InputContainer, frame_rate: int, path: str | Path) -> Iterator[VideoFrame]:
    """Yields the frame on show at 0, 1, 2, … / frame_rate seconds after the first, again and again if it stays."""
    track = _picture_track(container, path)
    rate = _rate(track)
    # Time stamps are rounded, and those of cameras jitter.
    tolerance = min(1 / rate, 1 / frame_rate) / 4
    is_avi = container.format.name == "avi"
    clock = Clock(0.0 if is_avi else origin(container), path)
    shown: VideoFrame | None = None
    taken = 0
    for frame, stamp in _by_place(container, track) if is_avi else _by_stamp(container, track):
        lasts = 0.0 if is_avi else frame.duration * float(frame.time_base or 0)
        try:
            time = clock.place(stamp, lasts or 1 / rate)
        except UnreadableError:
            # Up to there all is well.
            yield from [shown or frame] * max(0, math.ceil((clock.end - tolerance) * frame_rate) - taken)
            raise
        end = clock.end
        while shown is not None and taken / frame_rate < time - tolerance:
            yield shown
            taken += 1
        shown = frame
    while shown is not None and taken / frame_rate < end - tolerance:
        yield shown
        taken += 1


def _by_stamp(container: InputContainer, track: VideoStream) -> Iterator[tuple[VideoFrame, float | None]]:
    for frame in container.decode(track):
        yield frame, frame.time


def _by_place(container: InputContainer, track: VideoStream) -> Iterator[tuple[VideoFrame, float | None]]:
    """Yields the frames of an AVI file, which has no time stamps, but places for frames that all last equally long.

    A place is empty where the frame before stays. Frames are stored in the order in which they are decoded, so the
    first one shown has the first place that is taken, and so on.
    """
    places: list[float | None] = []
    index = 0
    for packet in container.demux(track):
        if packet.size:
            places.append(None if packet.dts is None else packet.dts * float(packet.time_base or 0))
        for frame in packet.decode():
            place = places[index] if index < len(places) else None
            yield frame, None if place is None else place - (places[0] or 0.0)
            index += 1


def _pixels(frame: VideoFrame, path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a frame, the right way up."""
    check_size(path, frame.height, frame.width)
    return np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90)


def fit_frame(
    frame: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Cuts the largest central window shaped as `size` out of a frame and resizes it, bilinear, as the colab does.

    Raises:
        ValueError: the frame is not of 8-bit pixels, or a side of it or of the result is below 1.
    """
    check_pixels(frame, "the frame")
    height, width = frame.shape[:2]
    shorter = min(height * size[1], width * size[0])
    crop_height, crop_width = max(shorter // max(size[1], 1), 1), max(shorter // max(size[0], 1), 1)
    top, left = height // 2 - crop_height // 2, width // 2 - crop_width // 2
    return resize(frame[top : top + crop_height, left : left + crop_width], size, "linear")


def to_frames(
    video: Float[Tensor, "frames 3 height width"],
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Maps a video with values 0…1 to frames with values 0…255, clipped as in the colab.

    Raises:
        ValueError: the video has another shape, is not floating, or has values that are NaN.
    """
    if not isinstance(video, Tensor) or video.ndim != 4 or video.shape[1] != 3 or not video.is_floating_point():
        kind = f"{video.dtype} {tuple(video.shape)}" if isinstance(video, Tensor) else f"a {type(video).__name__}"
        raise ValueError(f"a video must be a floating tensor [frames, 3, height, width] of values 0…1, not {kind}")
    values = video.detach().float().cpu()
    if values.isnan().any():
        raise ValueError("the video has values that are NaN; the model's checkpoint is damaged, or its training failed")
    pixels = (values * 255).clamp(0, 255).to(torch.uint8)
    frames: UInt8[np.ndarray, "frames height width 3"] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return frames
