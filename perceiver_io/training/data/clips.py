"""Clips with sound for autoencoding: video files in a folder per class, or moving shapes with a tone each."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io.media import FRAME_RATE, TooShortError, read_audio, read_video, video_duration
from perceiver_io.processors import prepare_audio, prepare_video
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.sampling import Draw

VIDEO_SUFFIXES = (".mp4", ".avi", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm")

Plane = Float[Tensor, "time height width"]
Distance = Callable[[Plane, Plane], Plane]


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


# Distances to the outlines, negative inside; the shapes lie within the circle of radius 1 or a little beyond it.
_SHAPES: dict[str, Distance] = {
    "disc": lambda x, y: torch.hypot(x, y) - 1,
    "square": lambda x, y: _box(x, y, 0.85, 0.85),
    "triangle": lambda x, y: torch.maximum(math.sqrt(3) / 2 * x.abs() - 0.5 * y, y) - 0.5,
    "diamond": lambda x, y: (x.abs() + y.abs() - 1.1) / math.sqrt(2),
    "ring": lambda x, y: (torch.hypot(x, y) - 0.75).abs() - 0.25,
    "cross": lambda x, y: torch.minimum(_box(x, y, 1.0, 0.3), _box(x, y, 0.3, 1.0)),
    "bar": lambda x, y: _box(x, y, 1.0, 0.35),
    "crescent": lambda x, y: torch.maximum(torch.hypot(x, y) - 1, 0.75 - torch.hypot(x - 0.5, y)),
}
# The tone of each: the major scale on A, in Hz.
_TONES = tuple(220 * 2 ** (semitones / 12) for semitones in (0, 2, 4, 5, 7, 9, 11, 12))


class VideoFolder:
    """Maps draws to clips from video files: at a random position of the file, with its sound.

    Pictures are cropped and resized as `read_video` does it, sound is resampled to go with them. Sound that ends before
    the pictures goes on as silence. A video without any is an error, since its silence would be taught as what goes
    with its pictures; `SkipUnusable` leaves such videos out, and damaged ones.

    Args:
        files: see `find_labelled_files`, with `VIDEO_SUFFIXES`.
        num_frames: of a clip, 25 a second.
        image_size: height and width of a frame in pixels.
        audio_samples_per_frame: audio samples per frame.
        random_positions: whether clips start anywhere; if not, they are the start of their file, for evaluation.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(
        self,
        files: Sequence[LabelledFile],
        *,
        num_frames: int,
        image_size: tuple[int, int],
        audio_samples_per_frame: int,
        random_positions: bool = True,
    ) -> None:
        if not files:
            raise ValueError("a data set needs at least one video file")
        self.files = list(files)
        self.num_frames = num_frames
        self.image_size = image_size
        self.audio_samples_per_frame = audio_samples_per_frame
        self.random_positions = random_positions

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Maps a draw to "video" [time, 3, height, width] in 0…1, "audio" [samples, 1] in -1…1 and "label".

        Raises:
            ValueError: a video that cannot be read, is too short or has no sound, naming the file.
        """
        path, label = self.files[draw.index]
        start, frames = self._frames(path, draw.seed)
        first, samples = start * self.audio_samples_per_frame, self.num_frames * self.audio_samples_per_frame
        sound = read_audio(path, FRAME_RATE * self.audio_samples_per_frame, first + samples)
        if not len(sound):
            raise ValueError(f"{path} has no sound; the model learns from pictures and sound: give a video with both")
        return {
            "video": prepare_video(frames),
            "audio": prepare_audio(sound[first:], samples),
            "label": torch.tensor(label),
        }

    def _frames(self, path: Path, seed: int) -> tuple[int, UInt8[np.ndarray, "frames height width 3"]]:
        """Reads the frames of the clip, and says which is the first; every start that leaves enough is as likely."""
        if not self.random_positions:
            return 0, read_video(path, self.image_size, self.num_frames)
        random = torch.Generator().manual_seed(seed)
        num_frames = math.floor(_duration(path, path.stat().st_mtime_ns) * FRAME_RATE + 1e-3)
        start = self._start(num_frames, random)
        try:
            return start, read_video(path, self.image_size, self.num_frames, start=start)
        except TooShortError as error:
            # The header promised more. Starts that there are were as likely as one another, and still are.
            start = self._start(error.num_frames, random)
            return start, read_video(path, self.image_size, self.num_frames, start=start)

    def _start(self, num_frames: int, random: torch.Generator) -> int:
        return int(torch.randint(max(num_frames - self.num_frames, 0) + 1, (), generator=random))


@lru_cache(maxsize=100_000)
def _duration(path: Path, changed: int) -> float:
    # Some files say it only to those who go through them.
    return video_duration(path)


class MovingShapes:
    """Maps draws to clips that are made up: a shape glides before a plain ground, bounces off the borders, and hums.

    Each class has its shape and its tone, a step of the major scale. Place, course, speed, size and colours are random,
    as are loudness and phase of the tone; an example depends on the draw's seed alone.

    Args:
        num_clips: how many clips count as an epoch.
        num_frames: of a clip, 25 a second.
        image_size: height and width of a frame in pixels.
        audio_samples_per_frame: audio samples per frame; at least 40, so that the highest tone has two to a wave.
    """

    classes = tuple(_SHAPES)

    def __init__(
        self,
        num_clips: int,
        *,
        num_frames: int = 8,
        image_size: tuple[int, int] = (32, 32),
        audio_samples_per_frame: int = 128,
    ) -> None:
        if FRAME_RATE * audio_samples_per_frame < 2 * max(_TONES):
            raise ValueError(
                f"audio_samples_per_frame ({audio_samples_per_frame}) must be at least "
                f"{math.ceil(2 * max(_TONES) / FRAME_RATE)}: the highest tone has {max(_TONES):.0f} Hz"
            )
        self.num_clips = num_clips
        self.num_frames = num_frames
        self.image_size = image_size
        self.audio_samples_per_frame = audio_samples_per_frame

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Maps a draw to "video" [time, 3, height, width] in 0…1, "audio" [samples, 1] in -1…1 and "label"."""
        random = torch.Generator().manual_seed(draw.seed)
        label = torch.randint(len(self.classes), (), generator=random)
        shape = torch.rand(11, generator=random)
        loudness, phase = torch.rand(2, generator=random).tolist()
        return {
            "video": self._draw_shape(self.classes[label], shape),
            "audio": self._play_tone(_TONES[label], 0.3 + 0.6 * loudness, phase),
            "label": label,
        }

    def _draw_shape(self, name: str, random: Float[Tensor, "11"]) -> Float[Tensor, "time 3 height width"]:
        """Draws the clip that eleven numbers in 0…1 determine. Lengths are in pixels; y points down."""
        height, width = self.image_size
        scale, speed, direction, *start = random[:5].tolist()
        radius = (0.22 + 0.1 * scale) * min(height, width)
        step = (1 + speed) * min(height, width) / 32  # a frame
        course = 2 * math.pi * direction
        x = torch.arange(width) + 0.5 - self._path(start[0], step * math.cos(course), radius, width)
        y = torch.arange(height).unsqueeze(-1) + 0.5 - self._path(start[1], step * math.sin(course), radius, height)
        x, y = torch.broadcast_tensors(x, y)
        # Pixels that the outline crosses are covered in part: soft edges.
        covered = (0.5 - radius * _SHAPES[name](x / radius, y / radius)).clamp(0, 1).unsqueeze(1)
        bright, dark = 0.5 + 0.5 * random[5:8, None, None], 0.4 * random[8:11, None, None]
        return dark + (bright - dark) * covered

    def _path(self, start: float, step: float, radius: float, size: int) -> Float[Tensor, "time 1 1"]:
        """The centre's coordinate over time, between borders that it bounces off."""
        room = size - 2 * radius
        travelled = (start * room + step * torch.arange(self.num_frames)) % (2 * room)
        return (radius + torch.minimum(travelled, 2 * room - travelled))[:, None, None]

    def _play_tone(self, frequency: float, loudness: float, phase: float) -> Float[Tensor, "samples 1"]:
        """A sine, its frequency in Hz, its phase in turns."""
        samples_per_frame = self.audio_samples_per_frame
        seconds = torch.arange(self.num_frames * samples_per_frame) / (FRAME_RATE * samples_per_frame)
        return loudness * torch.sin(2 * math.pi * (frequency * seconds + phase)).unsqueeze(-1)
