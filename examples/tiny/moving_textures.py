"""Pairs of frames that are made up: textures that move, with the exact motion of every pixel."""

import cmath
import dataclasses
import math

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from perceiver_io.training.sampling import Draw

# Wavelengths in pixels, number of waves, and deviation of a colour before it is limited to -1…1.
_WAVELENGTHS = (8.0, 96.0)
_NUM_WAVES = 24
_CONTRAST = 0.4


@dataclasses.dataclass(frozen=True)
class _Texture:
    """A sum of waves, each of one colour: smooth, and known between the pixels too.

    Args:
        waves: radians per pixel along x and y.
        phases: of the waves.
        colours: amplitudes of each wave in red, green and blue.
        ground: the mean colour.
    """

    waves: Float[Tensor, "waves 2"]
    phases: Float[Tensor, "waves"]
    colours: Float[Tensor, "waves 3"]
    ground: Float[Tensor, "3"]

    @classmethod
    def drawn(cls, random: torch.Generator) -> "_Texture":
        """Draws wavelengths evenly over the octaves, all of one strength: natural images' power of 1/frequency²."""
        shortest, longest = _WAVELENGTHS
        wavelengths = shortest * (longest / shortest) ** torch.rand(_NUM_WAVES, generator=random)
        direction, phases = 2 * math.pi * torch.rand(2, _NUM_WAVES, generator=random)
        waves = 2 * math.pi / wavelengths * torch.stack([direction.cos(), direction.sin()])
        colours = _CONTRAST / math.sqrt(_NUM_WAVES / 2) * torch.randn(_NUM_WAVES, 3, generator=random)
        return cls(waves.T, phases, colours, torch.rand(3, generator=random) - 0.5)

    def at(self, points: Complex[Tensor, "points"]) -> Float[Tensor, "3 points"]:
        """Colours in -1…1."""
        waves = torch.addmm(self.phases, torch.view_as_real(points), self.waves.T).sin_()
        return torch.addmm(self.ground, waves, self.colours).tanh_().T


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A textured thing and how it moves. Places are complex numbers x + iy in pixels; y points down.

    Args:
        texture: of the thing.
        centre: of its outline, and of its turning and growing.
        axes: half of its length and width along its own axes, as a complex number; None: it is everywhere.
        angle: of its own axes, in radians.
        is_round: an ellipse, or a rectangle.
        shift: how the centre moves, in pixels.
        spin: how much the thing grows (real part) and turns (imaginary part, in radians), both by small amounts.
    """

    texture: _Texture
    centre: complex
    axes: tuple[float, float] | None
    angle: float
    is_round: bool
    shift: complex
    spin: complex

    def motion(self, points: Complex[Tensor, "points"]) -> Complex[Tensor, "points"]:
        """Maps points to their motion from the first frame to the second."""
        return self.shift + self.spin * (points - self.centre)

    def origin(self, points: Complex[Tensor, "points"]) -> Complex[Tensor, "points"]:
        """Maps points of the second frame to where they were in the first."""
        return self.centre + (points - self.centre - self.shift) * (1 / (1 + self.spin))

    def covers(self, points: Complex[Tensor, "points"]) -> Bool[Tensor, "points"]:
        """Whether the thing is at points of the first frame."""
        if self.axes is None:
            return torch.ones(points.shape, dtype=torch.bool)
        own = torch.view_as_real((points - self.centre) * cmath.exp(-1j * self.angle)) / torch.tensor(self.axes)
        return torch.linalg.vector_norm(own, 2 if self.is_round else math.inf, dim=-1) < 1


class MovingTextures:
    """Maps draws to pairs that are made up: "frame1" and "frame2" in -1…1, and "flow" (x, y) in pixels.

    Up to four textured ellipses and rectangles lie on a textured ground; each of these shifts, turns, grows or does all
    at once, at its own speed. The flow is exact at every pixel of the first frame, also where the second frame hides
    it. An example depends on the draw's seed alone.

    Args:
        num_pairs: how many pairs count as an epoch.
        image_size: height and width in pixels.
        max_speed: no pixel moves further, in pixels.
        lead_in: for so many steps of a run, pairs are easy: the ground alone, shifted by half of `max_speed` at most.

    Raises:
        ValueError: if `max_speed` is not positive.
    """

    def __init__(
        self, num_pairs: int, *, image_size: tuple[int, int] = (64, 96), max_speed: float = 6.0, lead_in: int = 0
    ) -> None:
        if max_speed <= 0:
            raise ValueError(f"max_speed ({max_speed}) must be above 0 pixels")
        self.num_pairs = num_pairs
        self.image_size = image_size
        self.max_speed = max_speed
        self.lead_in = lead_in

    def __len__(self) -> int:
        return self.num_pairs

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Makes a pair."""
        random = torch.Generator().manual_seed(draw.seed)
        is_easy = draw.step is not None and draw.step < self.lead_in
        height, width = self.image_size
        x, y = torch.arange(float(width)), torch.arange(float(height))
        points = torch.complex(*torch.meshgrid(x, y, indexing="xy")).flatten()
        frame1, frame2 = torch.empty(2, 3, len(points))
        flow = torch.empty_like(points)
        for layer in self._layers(random, is_easy):
            # Later layers lie above earlier ones, in both frames.
            here = layer.covers(points)
            frame1[:, here] = layer.texture.at(points[here])
            flow[here] = layer.motion(points[here])
            origin = layer.origin(points)
            there = layer.covers(origin)
            frame2[:, there] = layer.texture.at(origin[there])
        pair = {"frame1": frame1, "frame2": frame2, "flow": torch.view_as_real(flow).T}
        return {name: part.unflatten(1, self.image_size).contiguous() for name, part in pair.items()}

    def _layers(self, random: torch.Generator, is_easy: bool) -> list[_Layer]:
        if is_easy:
            return [self._ground(random, *_motion(random, 0.5 * self.max_speed, only_shift=True))]
        ground = self._ground(random, *_motion(random, self.max_speed))
        num_things = int(torch.randint(1, 5, (), generator=random))
        return [ground, *(self._thing(random, *_motion(random, self.max_speed)) for _ in range(num_things))]

    def _ground(self, random: torch.Generator, shift: complex, edge_shift: complex) -> _Layer:
        height, width = self.image_size
        centre = complex(width - 1, height - 1) / 2
        return _Layer(_Texture.drawn(random), centre, None, 0.0, False, shift, edge_shift / abs(centre))

    def _thing(self, random: torch.Generator, shift: complex, edge_shift: complex) -> _Layer:
        height, width = self.image_size
        x, y, angle, roundness, length, breadth = torch.rand(6, generator=random).tolist()
        unit = min(height, width) / 32  # half of a side has from 4 to 10 of these
        axes = (unit * (4 + 6 * length), unit * (4 + 6 * breadth))
        is_round = roundness < 0.5
        spin = edge_shift / (max(axes) if is_round else math.hypot(*axes))
        centre = complex(x * (width - 1), y * (height - 1))
        return _Layer(_Texture.drawn(random), centre, axes, math.pi * angle, is_round, shift, spin)


def _motion(random: torch.Generator, max_speed: float, only_shift: bool = False) -> tuple[complex, complex]:
    """Draws how a thing's centre moves, and how much more its farthest point: outwards (real part) and around it.

    Together they move this point by between a sixth and all of `max_speed`, in pixels.
    """
    kind = 0 if only_shift else int(torch.randint(4, (), generator=random))  # shifts, turns, grows, or all of these
    speed, direction, shifting, turning, growing = torch.rand(5, generator=random).tolist()
    shift = (0.3 + 0.7 * shifting) * (kind in (0, 3)) * cmath.exp(2j * math.pi * direction)
    edge_shift = complex((2 * growing - 1) * (kind in (2, 3)), (2 * turning - 1) * (kind in (1, 3)))
    factor = max_speed * (1 + 5 * speed) / 6 / (abs(shift) + abs(edge_shift))
    return shift * factor, edge_shift * factor
