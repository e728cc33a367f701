"""Video files: frames as the video colab prepares them, and results as MP4 or GIF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.media.resizing import resize
from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from av.container import InputContainer

# The released model saw 25 frames a second: 1,920 samples of its 48 kHz sound go with each.
FRAME_RATE = 25
_AAC_RATE = 48_000
# Files round time stamps to a millisecond or finer.
_TIME_ROUNDING = 1e-3
# FFmpeg gives the duration of a whole file in microseconds.
_CONTAINER_TIME_BASE = 1_000_000


def read_video(
    path: str | Path,
    size: tuple[int, int],
    num_frames: int | None = None,
    frame_rate: int = FRAME_RATE,
    start: int = 0,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Video file → its first frames, centre-cropped and resized (bilinear) as by the colab's `load_video`.

    DEVIATION: the colab takes every frame of whatever rate. We take the frame that is on show at each 1/25 s,
    so that pictures and sound stay together; for a file of 25 frames a second this is the same.

    Args:
        path: any file that FFmpeg reads.
        size: (height, width) of the frames: `model.config.image_size`.
        num_frames: how many to read; None reads all of them.
        frame_rate: frames a second to take.
        start: the frame to begin with.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video file, no picture track, or fewer than `num_frames` frames from `start` on.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    end = None if num_frames is None else start + num_frames
    with _opened(path) as container:
        frames = [fit_frame(frame, size) for frame in islice(_frames_at_rate(container, frame_rate), start, end)]
    if not frames or (num_frames is not None and len(frames) < num_frames):
        raise ValueError(
            f"{path} has {len(frames)} frames at {frame_rate} a second{f' from frame {start} on' if start else ''}; "
            f"{num_frames or 1} are needed: give a longer video"
        )
    return np.stack(frames)


def video_duration(path: str | Path) -> float:
    """Video file → its duration in seconds as its header states it, or 0 where it does not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video file, or no picture track.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / _CONTAINER_TIME_BASE


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    """Path → the open file, which has a picture track; what FFmpeg cannot read is a ValueError that names the file."""
    with needs_extra("reading videos"):
        import av
    if not Path(path).is_file():
        raise FileNotFoundError(f"no video at {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no picture track; give a video file")
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video that FFmpeg can read: {error}") from error


def _frames_at_rate(container: InputContainer, frame_rate: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Open file → the frame on show at 0, 1, 2, … / frame_rate seconds after the first, the right way up."""
    stream = container.streams.video[0]
    native_rate = float(stream.average_rate or stream.guessed_rate or frame_rate)
    shown: UInt8[np.ndarray, "height width 3"] | None = None
    start = end = 0.0
    taken = 0
    for index, frame in enumerate(container.decode(stream)):
        # At the rate asked for, every frame counts once whatever its time stamp: AVI files mix them up.
        stamped = native_rate != frame_rate and frame.time is not None
        time = frame.time if stamped else index / native_rate
        start = time if index == 0 else start
        while shown is not None and taken / frame_rate < time - start - _TIME_ROUNDING:
            yield shown
            taken += 1
        shown = np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90)
        lasts = frame.duration * float(frame.time_base or 0) if stamped else 0.0
        end = time - start + (lasts or 1 / native_rate)
    while shown is not None and taken / frame_rate < end - _TIME_ROUNDING:
        yield shown
        taken += 1


def fit_frame(
    frame: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Frame → its largest central window shaped as `size`, resized (bilinear) to it; the colab's `load_video`.

    Raises:
        ValueError: a side below 1, of the frame or of the result.
    """
    height, width = frame.shape[:2]
    shorter = min(height * size[1], width * size[0])
    crop_height, crop_width = max(shorter // size[1], 1), max(shorter // size[0], 1)
    top, left = height // 2 - crop_height // 2, width // 2 - crop_width // 2
    return resize(frame[top : top + crop_height, left : left + crop_width], size, "linear")


def to_frames(
    video: Float[Tensor, "frames 3 height width"],
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Video with values 0…1 → frames with values 0…255, clipped as in the colab."""
    pixels = (video.detach().float().cpu() * 255).clamp(0, 255).to(torch.uint8)
    frames: UInt8[np.ndarray, "frames height width 3"] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return frames


def write_gif(
    path: str | Path, frames: UInt8[np.ndarray, "frames height width 3"], frame_rate: int = FRAME_RATE
) -> None:
    """Frames → an endlessly looping GIF. GIFs count time in 1/100 s: 25 frames a second is exact.

    Raises:
        ValueError: no frames.
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    with needs_extra("writing GIFs"):
        from PIL import Image
    _check_not_empty(path, frames)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / frame_rate), loop=0)


def write_mp4(
    path: str | Path,
    frames: UInt8[np.ndarray, "frames height width 3"],
    frame_rate: int = FRAME_RATE,
    audio: Float[Tensor, "samples channels"] | None = None,
    sample_rate: int = 48_000,
) -> None:
    """Frames, and sound if given → an MP4 file: H.264 (MPEG-4 where FFmpeg was built without it) and AAC.

    Args:
        path: of the file to write.
        frames: odd sides are extended by one pixel, since H.264 wants even ones.
        frame_rate: frames a second.
        audio: values -1…1, of which the first channel is written.
        sample_rate: of `audio`, in Hz; the file has 48 kHz.

    Raises:
        ValueError: no frames.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with needs_extra("writing videos"):
        import av
    _check_not_empty(path, frames)
    frames = np.pad(frames, [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)], mode="edge")
    with av.open(str(path), "w", format="mp4") as container:
        if "libx264" in av.codecs_available:
            pictures = container.add_stream("libx264", rate=frame_rate, options={"crf": "18"})
        else:
            pictures = container.add_stream("mpeg4", rate=frame_rate, options={"qscale": "3"})
        pictures.height, pictures.width = frames.shape[1:3]
        pictures.pix_fmt = "yuv420p"
        sound = None if audio is None else container.add_stream("aac", rate=_AAC_RATE, layout="mono")
        if sound is not None and audio is not None:
            samples = audio[:, :1].detach().to("cpu", torch.float32).clamp(-1, 1).T.contiguous().numpy()
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate = sample_rate
            # Without a time stamp the encoder's lead-in of 1,024 samples would stay in the file as a delay.
            block.pts, block.time_base = 0, Fraction(1, sample_rate)
            # AAC takes 1,024 samples at a time.
            resampler = av.AudioResampler("fltp", "mono", _AAC_RATE, frame_size=1024)
            for resampled in [*resampler.resample(block), *resampler.resample(None)]:
                container.mux(sound.encode(resampled))
            container.mux(sound.encode(None))
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))


def _check_not_empty(path: str | Path, frames: UInt8[np.ndarray, "frames height width 3"]) -> None:
    if frames.size == 0:
        raise ValueError(f"no frames to write to {path}: their shape is {frames.shape}")
