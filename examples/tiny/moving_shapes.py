"""Clips with sound that are made up: moving shapes with a tone each."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.media import FRAME_RATE
from perceiver_io.training.sampling import Draw

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
