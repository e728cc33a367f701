"""Results as MP4 or GIF."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.media.arrays import check_pixels, sound_samples
from perceiver_io.media.border import writing
from perceiver_io.media.video import FRAME_RATE
from perceiver_io.optional import needs_extra

_AAC_RATE = 48_000


def write_gif(
    path: str | Path, frames: UInt8[np.ndarray, "frames height width 3"], frame_rate: int = FRAME_RATE
) -> None:
    """Writes frames as an endlessly looping GIF. GIFs count time in 1/100 s: 25 frames a second is exact.

    Raises:
        ValueError: no frames, or not of 8-bit pixels.
        OSError: the file cannot be written.
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    with needs_extra("writing GIFs"):
        from PIL import Image
    _check_frames(path, frames)
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    with writing(path) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / frame_rate), loop=0
        )


def write_mp4(
    path: str | Path,
    frames: UInt8[np.ndarray, "frames height width 3"],
    frame_rate: int = FRAME_RATE,
    audio: Float[Tensor, "samples channels"] | None = None,
    sample_rate: int = 48_000,
) -> None:
    """Writes frames, and sound if given, as an MP4 file: H.264 (MPEG-4 where FFmpeg was built without it) and AAC.

    Args:
        path: of the file to write.
        frames: odd sides are extended by one pixel, since H.264 wants even ones.
        frame_rate: frames a second.
        audio: values -1…1, of which the first channel is written.
        sample_rate: of `audio`, in Hz; the file has 48 kHz.

    Raises:
        ValueError: no frames, not of 8-bit pixels, or `audio` is not a sound.
        OSError: the file cannot be written.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with needs_extra("writing videos"):
        import av
    _check_frames(path, frames)
    samples = None if audio is None else sound_samples(audio)[:, :1].clamp(-1, 1).T.contiguous().numpy()
    frames = np.pad(frames, [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)], mode="edge")
    with writing(path) as temporary, av.open(f"file:{temporary}", "w", format="mp4") as container:
        if "libx264" in av.codecs_available:
            pictures = container.add_stream("libx264", rate=frame_rate, options={"crf": "18"})
        else:
            pictures = container.add_stream("mpeg4", rate=frame_rate, options={"qscale": "3"})
        pictures.height, pictures.width = frames.shape[1:3]
        pictures.pix_fmt = "yuv420p"
        if samples is not None:
            sound = container.add_stream("aac", rate=_AAC_RATE, layout="mono")
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


def _check_frames(path: str | Path, frames: UInt8[np.ndarray, "frames height width 3"]) -> None:
    check_pixels(frames, "the frames", axes=4)
    if frames.size == 0 or frames.shape[3] != 3:
        raise ValueError(f"no frames to write to {path}: their shape is {frames.shape}")
