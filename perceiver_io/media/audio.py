"""Sound files: samples with values -1…1, at the 48 kHz of the released model unless asked otherwise."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from perceiver_io.media.arrays import sound_samples
from perceiver_io.media.border import UnreadableError, writing
from perceiver_io.media.film import Clock, opened, origin, sound_track

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 48_000
# 2 GiB: an hour and a half of stereo at 48 kHz.
_MAX_VALUES = 2**29
# Shorter pauses are how containers round time stamps.
_PAUSE = 0.05


def read_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, num_samples: int | None = None
) -> Float32[Tensor, "samples channels"]:
    """Reads the sound of a WAV, another sound file or a film: samples in -1…1 at the rate asked for.

    16-bit samples are divided by 2^15, as in the colab. Other rates are resampled by FFmpeg's libswresample
    with its default windowed sinc filter, which is what the colab's `ffmpeg -ar 48000` does.

    The sound of a film starts with its first picture: if its track starts later, there is silence before it, and sound
    from before is left out. Pauses of the track are silence, too.

    Args:
        path: a sound file or film of the usual kinds.
        sample_rate: of the result, in Hz.
        num_samples: read no more than these; None reads all.

    Returns:
        The samples of each channel. A file without a sound track gives no samples, [0, 1], which
        `prepare_audio` fills with silence.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a sound file or film, a damaged one, or one too long to be read whole.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    if sample_rate < 1 or (num_samples is not None and num_samples < 0):
        raise ValueError(
            f"sample_rate ({sample_rate}) must be at least 1, num_samples ({num_samples}) at least 0 or None"
        )
    with opened(path, "sound file") as container:
        track = sound_track(container)
        if track is None:
            return torch.zeros(0, 1)
        claimed = (track.duration or 0) * (track.time_base or 0) * sample_rate
        if num_samples is None and claimed * track.codec_context.layout.nb_channels > _MAX_VALUES:
            raise _too_much(path)
        sound: list[Float32[np.ndarray, "samples channels"]] = []
        position, num_channels = 0, 1
        for start, block in _resampled(container, track, sample_rate, path):
            num_channels = block.shape[1]
            end = start + len(block) if num_samples is None else min(start + len(block), num_samples)
            if (end - position) * num_channels + sum(map(np.size, sound)) > _MAX_VALUES:
                raise _too_much(path)
            if start > position:
                sound.append(np.zeros((min(start, end) - position, num_channels), np.float32))
            if end > position:
                sound.append(block[max(position - start, 0) : end - start])
                position = end
            if position == num_samples:
                break
    return torch.from_numpy(np.concatenate(sound)) if sound else torch.zeros(0, num_channels)


def _too_much(path: str | Path) -> UnreadableError:
    return UnreadableError(f"{path} has too much sound to read it whole; read a part of it: num_samples")


def _resampled(
    container: InputContainer, track: AudioStream, sample_rate: int, path: str | Path
) -> Iterator[tuple[int, Float32[np.ndarray, "samples channels"]]]:
    """Yields blocks of sound, each with the number of its first sample, which leaves out pauses and may be below 0."""
    clock = Clock(origin(container), path)
    run: _Run | None = None
    first: AudioFrame | None = None
    for frame in container.decode(track):
        first = first or frame
        channels = first.layout.nb_channels
        if frame.samples * channels * sample_rate > _MAX_VALUES * frame.sample_rate:
            raise UnreadableError(f"{path} has {frame.sample_rate} samples a second; at {sample_rate} it is too long")
        end = clock.end
        time = clock.place(frame.time, frame.samples / frame.sample_rate)
        if run is None or time - end > _PAUSE or not run.goes_on(frame):
            if run is not None:
                yield from run.blocks(None)
            run = _Run(frame, round(time * sample_rate), sample_rate, channels)
        yield from run.blocks(frame)
    if run is not None:
        yield from run.blocks(None)


class _Run:
    """Frames of one kind without a pause between them, resampled.

    Args:
        frame: the first.
        position: the number of its first sample, at the rate of the result.
        sample_rate: of the result, in Hz.
        num_channels: of the result.
    """

    def __init__(self, frame: AudioFrame, position: int, sample_rate: int, num_channels: int) -> None:
        from av import AudioResampler

        layout = None if frame.layout.nb_channels == num_channels else f"{num_channels}c"
        # Packed samples: PyAV reads planar ones past the eighth channel from where there are none.
        self._resampler = AudioResampler(format="flt", layout=layout, rate=sample_rate)
        self._kind = self._kind_of(frame)
        self._position = position

    @staticmethod
    def _kind_of(frame: AudioFrame) -> tuple[object, ...]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    def goes_on(self, frame: AudioFrame) -> bool:
        """Says whether a frame is of the run's kind."""
        return self._kind_of(frame) == self._kind

    def blocks(self, frame: AudioFrame | None) -> Iterator[tuple[int, Float32[np.ndarray, "samples channels"]]]:
        """Yields what a frame adds, or what is left at the end of the run."""
        for block in self._resampler.resample(frame):
            samples = block.to_ndarray().reshape(-1, block.layout.nb_channels)
            yield self._position, samples
            self._position += len(samples)


def write_wav(path: str | Path, audio: Float[Tensor, "samples channels"], sample_rate: int = SAMPLE_RATE) -> None:
    """Writes samples in -1…1 as a 16-bit WAV file; louder samples are clipped.

    Args:
        path: of the file to write.
        audio: at least one channel; [samples, channels], or what else `sound_samples` takes.
        sample_rate: in Hz.

    Raises:
        ValueError: `audio` is not a sound, or the rate is none.
        OSError: the file cannot be written.
    """
    samples = sound_samples(audio)
    if not 1 <= sample_rate <= 2**31 // (2 * samples.shape[1]):
        raise ValueError(f"sample_rate ({sample_rate}) must be at least 1, and a number that a WAV file can hold")
    scaled = (samples * 2**15).round().clamp(-(2**15), 2**15 - 1)
    with writing(path) as temporary, temporary.open("wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(sample_rate)
        sound.writeframes(scaled.numpy().astype("<i2").tobytes())
