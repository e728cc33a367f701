"""Sound files: samples with values -1…1, at the 48 kHz of the released model unless asked otherwise."""

from __future__ import annotations

import wave
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from perceiver_io.optional import needs_extra

SAMPLE_RATE = 48_000


def read_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, num_samples: int | None = None
) -> Float32[Tensor, "samples channels"]:
    """Sound of a WAV, another sound file or a video → samples in -1…1 at the rate asked for.

    16-bit samples are divided by 2^15, as in the colab. Other rates are resampled by FFmpeg's libswresample
    with its default windowed sinc filter, which is what the colab's `ffmpeg -ar 48000` does.

    Args:
        path: any file that FFmpeg reads.
        sample_rate: of the result, in Hz.
        num_samples: read no more than these; None reads all.

    Returns:
        The samples of each channel. A file without a sound track gives no samples, [0, 1], which
        `prepare_audio` fills with silence.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a sound or video file.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with needs_extra("reading sound"):
        import av
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no sound file at {path}")
    blocks: list[Float32[np.ndarray, "samples channels"]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return torch.zeros(0, 1)
            resampler = av.AudioResampler(format="fltp", rate=sample_rate)
            for frame in chain(container.decode(audio=0), [None]):
                blocks += [block.to_ndarray().T for block in resampler.resample(frame)]
                if num_samples is not None and sum(map(len, blocks)) >= num_samples:
                    break
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a sound file that FFmpeg can read: {error}") from error
    return torch.from_numpy(np.concatenate(blocks)[:num_samples]) if blocks else torch.zeros(0, 1)


def write_wav(path: str | Path, audio: Float[Tensor, "samples channels"], sample_rate: int = SAMPLE_RATE) -> None:
    """Samples in -1…1 → a 16-bit WAV file; louder samples are clipped.

    Args:
        path: of the file to write.
        audio: at least one channel; [samples, channels].
        sample_rate: in Hz.

    Raises:
        ValueError: `audio` has other than two axes.
    """
    if audio.ndim != 2 or audio.shape[1] < 1:
        raise ValueError(f"audio has shape {tuple(audio.shape)}; a WAV file takes [samples, channels]")
    scaled = (audio.detach().float().cpu() * 2**15).round().clamp(-(2**15), 2**15 - 1)
    with Path(path).open("wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(audio.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(sample_rate)
        sound.writeframes(scaled.numpy().astype("<i2").tobytes())
