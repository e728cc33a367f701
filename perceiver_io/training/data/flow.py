"""Pairs of frames with the motion between them: folders with .flo files, and moving textures that are made up."""

import cmath
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from perceiver_io.media import load_image, read_flo
from perceiver_io.processors import prepare_frame
from perceiver_io.training.sampling import Draw

# What the files of a pair are called: FlyingChairs' `00001_img1.ppm`, AutoFlow's folders with `im0.png`.
_NAMES = {"_flow.flo": ("_img1", "_img2"), "forward.flo": ("im0", "im1")}
_PICTURE_SUFFIXES = (".png", ".ppm", ".jpg", ".jpeg", ".bmp", ".webp")
# Textures: wavelengths in pixels, number of waves, and deviation of a colour before it is limited to -1…1.
_WAVELENGTHS = (8.0, 96.0)
_NUM_WAVES = 24
_CONTRAST = 0.4


class PairFiles(NamedTuple):
    """The files of a pair."""

    frame1: Path
    frame2: Path
    flow: Path


def find_pairs(directory: str | Path, sintel_pass: str = "clean") -> list[PairFiles]:
    """Maps a folder to the pairs of frames in it, however deep, in sorted order.

    Three ways of naming are understood: Sintel's (`clean/SCENE/frame_0001.png` and `frame_0002.png` with
    `flow/SCENE/frame_0001.flo`), FlyingChairs' (`00001_img1.ppm`, `00001_img2.ppm`, `00001_flow.flo`) and AutoFlow's
    (folders with `im0.png`, `im1.png` and `forward.flo`).

    Args:
        sintel_pass: which rendering of Sintel's scenes, "clean" or "final".

    Raises:
        FileNotFoundError: no such folder, or a .flo file whose frames are missing, naming the first of these.
        ValueError: no .flo files that are named in one of these ways.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}; it must hold pairs of frames with .flo files")
    pairs = [_pair(flow, sintel_pass) for flow in sorted(directory.rglob("*.flo"))]
    found = [pair for pair in pairs if pair is not None]
    if not found:
        raise ValueError(
            f"{directory} has no pairs of frames; name them as Sintel (clean/SCENE/frame_0001.png, …0002.png, "
            "flow/SCENE/frame_0001.flo), FlyingChairs (1_img1.ppm, 1_img2.ppm, 1_flow.flo) or AutoFlow "
            "(im0.png, im1.png, forward.flo)"
        )
    return found


def _pair(flow: Path, sintel_pass: str) -> PairFiles | None:
    """The pair that a .flo file belongs to; None if it is named in no known way."""
    for ending, (name1, name2) in _NAMES.items():
        if flow.name.endswith(ending):
            stem = flow.name.removesuffix(ending)
            frame1, frame2 = (_picture(flow, flow.parent / f"{stem}{name}") for name in (name1, name2))
            return PairFiles(frame1, frame2, flow)
    prefix, _, number = flow.stem.rpartition("_")
    if flow.parent.parent.name != "flow" or not number.isdecimal():
        return None
    scene = flow.parents[2] / sintel_pass / flow.parent.name
    following = f"{prefix}_{int(number) + 1:0{len(number)}}"
    return PairFiles(_picture(flow, scene / flow.stem), _picture(flow, scene / following), flow)


def _picture(flow: Path, stem: Path) -> Path:
    """The picture of a name without its ending."""
    for suffix in _PICTURE_SUFFIXES:
        if (path := stem.with_name(stem.name + suffix)).is_file():
            return path
    raise FileNotFoundError(f"{flow} has no frame {stem}.png (or {', '.join(_PICTURE_SUFFIXES[1:])}) to go with it")


def split_pairs(pairs: Sequence[PairFiles]) -> tuple[list[PairFiles], list[PairFiles]]:
    """Maps pairs in order to those to train on and the last tenth, held out; so scenes of a film stay together.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(pairs) < 2:
        raise ValueError(f"there must be at least two pairs of frames, one of them to be held out; found {len(pairs)}")
    number = math.ceil(len(pairs) / 10)
    return list(pairs[:-number]), list(pairs[-number:])


class FlowFolder:
    """Maps draws to pairs of frames from files: "frame1" and "frame2" in -1…1, and "flow" (x, y) in pixels.

    A pair that cannot be read ends the run with an error that names the file; `SkipUnusable` leaves such pairs out.

    Args:
        files: see `find_pairs`.
        crop_size: height and width in pixels of what is cut out at random, and mirrored at random along both axes;
            None leaves the pairs whole.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(self, files: Iterable[PairFiles], crop_size: tuple[int, int] | None = None) -> None:
        self.files = list(files)
        if not self.files:
            raise ValueError("a data set needs at least one pair of frames")
        self.crop_size = crop_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Reads a pair, crops and mirrors it.

        Raises:
            FileNotFoundError: a file is gone.
            ValueError: a file is damaged, or the three differ in size or are smaller than the crop, naming the file.
        """
        files = self.files[draw.index]
        frames = [prepare_frame(load_image(path)) for path in (files.frame1, files.frame2)]
        pair = dict(zip(("frame1", "frame2", "flow"), (*frames, read_flo(files.flow)), strict=True))
        sizes = {tuple(part.shape[1:]) for part in pair.values()}
        if len(sizes) > 1:
            shapes = ", ".join("×".join(map(str, part.shape[1:])) for part in pair.values())
            raise ValueError(f"{', '.join(map(str, files))} must have one size; they have {shapes} pixels")
        if self.crop_size is None:
            return pair
        (size,) = sizes
        if any(side < wanted for side, wanted in zip(size, self.crop_size, strict=True)):
            raise ValueError(
                f"{files.frame1} has {size[0]}×{size[1]} pixels; pairs must have at least "
                f"{self.crop_size[0]}×{self.crop_size[1]}, which are cut out of them"
            )
        return _cropped_and_mirrored(pair, self.crop_size, torch.Generator().manual_seed(draw.seed))


def _cropped_and_mirrored(
    pair: dict[str, Tensor], crop_size: tuple[int, int], random: torch.Generator
) -> dict[str, Tensor]:
    window = []
    for side, wanted in zip(pair["flow"].shape[1:], crop_size, strict=True):
        start = int(torch.randint(side - wanted + 1, (), generator=random))
        window.append(slice(start, start + wanted))
    pair = {name: part[:, window[0], window[1]] for name, part in pair.items()}
    mirrored = torch.rand(2, generator=random) < 0.5  # along x, along y
    axes = [axis for axis, mirror in zip((-1, -2), mirrored.tolist(), strict=True) if mirror]
    pair = {name: part.flip(axes) for name, part in pair.items()}
    sign = 1 - 2 * mirrored.float()  # what is seen in a mirror moves the other way
    return {**pair, "flow": pair["flow"] * sign[:, None, None]}


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
        """How the points move from the first frame to the second."""
        return self.shift + self.spin * (points - self.centre)

    def origin(self, points: Complex[Tensor, "points"]) -> Complex[Tensor, "points"]:
        """Where the points of the second frame were in the first."""
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
