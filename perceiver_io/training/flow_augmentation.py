"""Pairs of frames changed at random, with their motion: RAFT's augmentation, which the paper's flow model learns from.

Source of the numbers: RAFT (Teed and Deng, 2020) and its published training code. Frames have values of -1…1 here,
motion is (x, y) in pixels, and motion that is not known is infinite.
"""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.media.flow import UNKNOWN_FLOW

Pair = dict[str, Tensor]
Range = tuple[float, float]

# From this share of known motion on, unknown pixels are holes in a whole; below it, known ones are scattered.
_MOSTLY_KNOWN = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Maps pictures to ones of other colours: four changes, in an order that is drawn too.

    DEVIATION: RAFT's code rounds to 8 bits after each change.

    Args:
        brightness: by how much the factor may differ from 1.
        contrast: likewise; 0 would be one shade of grey, the mean of all pictures.
        saturation: likewise; 0 would be grey.
        hue: by which share of the colour circle hues may be turned, at most a half.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.5 / 3.14

    def __call__(
        self, frames: Float[Tensor, "frames 3 height width"], generator: torch.Generator
    ) -> Float[Tensor, "frames 3 height width"]:
        """Changes pictures alike."""
        frames = (frames + 1) / 2
        amounts = (self.brightness, self.contrast, self.saturation)
        factors = [_between(max(0.0, 1 - amount), 1 + amount, generator) for amount in amounts]
        turn = _between(-self.hue, self.hue, generator)
        for change in torch.randperm(4, generator=generator).tolist():
            if change == 3:
                frames = turned_hue(frames, turn)
                continue
            grey = greyscale(frames) if change > 0 else frames.new_zeros(())
            other = grey.mean() if change == 1 else grey
            frames = torch.lerp(other.expand_as(frames), frames, factors[change]).clamp_(0, 1)
        return 2 * frames - 1


def greyscale(frames: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames 1 height width"]:
    """Maps pictures to their luminance (ITU-R 601)."""
    return torch.einsum("c,fchw->fhw", frames.new_tensor([0.299, 0.587, 0.114]), frames)[:, None]


def turned_hue(frames: Float[Tensor, "frames 3 height width"], turn: float) -> Float[Tensor, "frames 3 height width"]:
    """Turns the hue of pictures of 0…1, and leaves the saturation and value (HSV) as they are.

    Args:
        turn: share of the colour circle, from red towards green.
    """
    value, lowest = frames.amax(1, keepdim=True), frames.amin(1, keepdim=True)
    chroma = value - lowest
    red, green, blue = frames.split(1, dim=1)
    safe = chroma.clamp_min(1e-12)
    # In sixths of the circle, from red.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offsets = frames.new_tensor([5.0, 3.0, 1.0])[:, None, None] + 6 * turn
    place = (hue + offsets).remainder_(6)
    return torch.addcmul(value, chroma, torch.minimum(place, 4 - place).clamp_(0, 1), value=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowAugmentation:
    """Maps a pair of frames and its motion to a crop of it, changed at random; the defaults are RAFT's.

    First colours change, then patches of the second frame are hidden, then both frames are scaled, cropped and
    mirrored, and with them the motion: scaled like the frames, and negated along an axis that is mirrored.

    Args:
        size: height and width of the crop, which no scale may make too large.
        scale: lowest and highest exponent of 2 of the factor that frames are scaled by.
        stretch: highest exponent of 2, and lowest, of another factor of each axis.
        scale_probability: that the frames are scaled at all.
        stretch_probability: that the axes have factors of their own.
        mirror: probability along x, and along y.
        jitter: of the colours; None leaves them.
        separate_probability: that each frame has colours of its own.
        hide_probability: that one or two patches of the second frame get its mean colour, at random places.
        hidden: least and most pixels of a patch along an axis.
    """

    size: tuple[int, int]
    scale: Range = (-0.2, 0.5)
    stretch: float = 0.2
    scale_probability: float = 0.8
    stretch_probability: float = 0.8
    mirror: Range = (0.5, 0.1)
    jitter: ColorJitter | None = dataclasses.field(default_factory=ColorJitter)
    separate_probability: float = 0.2
    hide_probability: float = 0.5
    hidden: tuple[int, int] = (50, 99)

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Changes "frame1", "frame2" [3, height, width] and "flow" [2, height, width].

        Raises:
            ValueError: for a pair that is smaller than the crop.
        """
        (height, width), (least_height, least_width) = pair["flow"].shape[1:], self.size
        if height < least_height or width < least_width:
            raise ValueError(
                f"a pair of {height}×{width} pixels is smaller than the crop of {least_height}×{least_width}; take a "
                "smaller size"
            )
        frames, flow = torch.stack([pair["frame1"], pair["frame2"]]), pair["flow"]
        frames = self._with_patches_hidden(self._with_other_colours(frames, generator), generator)
        frames, flow = self._scaled(frames, flow, generator)
        rows, columns = (
            slice(start := _integer(0, side - wanted, generator), start + wanted)
            for side, wanted in zip(flow.shape[1:], self.size, strict=True)
        )
        frames, flow = frames[..., rows, columns], flow[:, rows, columns]
        mirrored = [_happens(probability, generator) for probability in self.mirror]
        axes = [axis for axis, mirror in zip((-1, -2), mirrored, strict=True) if mirror]
        sign = 1 - 2 * flow.new_tensor(mirrored)  # what is seen in a mirror moves the other way
        frame1, frame2 = frames.flip(axes)
        return {"frame1": frame1, "frame2": frame2, "flow": flow.flip(axes) * sign[:, None, None]}

    def _with_other_colours(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        if self.jitter is None:
            return frames
        if _happens(self.separate_probability, generator):
            return torch.cat([self.jitter(frame[None], generator) for frame in frames])
        return self.jitter(frames, generator)

    def _with_patches_hidden(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        if not _happens(self.hide_probability, generator):
            return frames
        frames = frames.clone()
        mean = frames[1].mean((1, 2))[:, None, None]
        for _ in range(_integer(1, 2, generator)):
            top, left = (_integer(0, side - 1, generator) for side in frames.shape[2:])
            height, width = (_integer(*self.hidden, generator) for _ in range(2))
            frames[1, :, top : top + height, left : left + width] = mean
        return frames

    def _scaled(self, frames: Tensor, flow: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        exponents = [_between(*self.scale, generator)] * 2
        if _happens(self.stretch_probability, generator):
            exponents = [exponent + _between(-self.stretch, self.stretch, generator) for exponent in exponents]
        if not _happens(self.scale_probability, generator):
            return frames, flow
        height, width = (
            max(wanted, round(side * 2**exponent))
            for side, wanted, exponent in zip(flow.shape[1:], self.size, exponents, strict=True)
        )
        return resized(frames, (height, width)), resized_flow(flow, (height, width))


def cropped_and_mirrored(size: tuple[int, int]) -> FlowAugmentation:
    """The gentlest augmentation: a crop, mirrored along both axes."""
    return dataclasses.replace(cropped(size), mirror=(0.5, 0.5))


def cropped(size: tuple[int, int]) -> FlowAugmentation:
    """No augmentation but the place of the crop."""
    return FlowAugmentation(size=size, scale_probability=0.0, mirror=(0.0, 0.0), jitter=None, hide_probability=0.0)


def raft_chairs(size: tuple[int, int]) -> FlowAugmentation:
    """RAFT's first stage, which it spends on FlyingChairs."""
    return FlowAugmentation(size=size, scale=(-0.1, 1.0))


def raft_things(size: tuple[int, int]) -> FlowAugmentation:
    """RAFT's second stage, on FlyingThings3D."""
    return FlowAugmentation(size=size, scale=(-0.4, 0.8))


def raft_sintel(size: tuple[int, int]) -> FlowAugmentation:
    """RAFT's third stage, on Sintel with others."""
    return FlowAugmentation(size=size, scale=(-0.2, 0.6))


def raft_kitti(size: tuple[int, int]) -> FlowAugmentation:
    """RAFT's last stage, on KITTI: gentler colours, alike in both frames, no mirrors, and axes that are scaled alike.

    DEVIATION: its crops lie more often at the borders than elsewhere.
    """
    return FlowAugmentation(
        size=size,
        scale=(-0.2, 0.4),
        stretch_probability=0.0,
        mirror=(0.0, 0.0),
        jitter=ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.3 / 3.14),
        separate_probability=0.0,
    )


def known_flow(flow: Float[Tensor, "2 height width"]) -> Bool[Tensor, "height width"]:
    """Maps motion to where it is known."""
    return (flow.abs() <= UNKNOWN_FLOW).all(0)


def resized(
    frames: Float[Tensor, "frames channels height width"], size: tuple[int, int]
) -> Float[Tensor, "frames channels new_height new_width"]:
    """Maps pictures to ones of another size, by bilinear interpolation without antialiasing."""
    return F.interpolate(frames, size, mode="bilinear", align_corners=False)


def resized_flow(
    flow: Float[Tensor, "2 height width"], size: tuple[int, int]
) -> Float[Tensor, "2 new_height new_width"]:
    """Maps motion to that of frames of another size, in their pixels; unknown motion never mixes with known.

    Where most of it is known, a new pixel is unknown if any of the four that it is made of is; where little is, as in
    KITTI, each known one goes to the new pixel that is nearest, and all others are unknown.
    """
    known = known_flow(flow)
    scale = flow.new_tensor([new / old for new, old in zip(size, known.shape, strict=True)][::-1])[:, None, None]
    clean = (flow * scale).where(known, 0.0)
    if known.float().mean() >= _MOSTLY_KNOWN:
        holes = resized((~known).to(flow.dtype)[None, None], size)[0] > 0
        return resized(clean[None], size)[0].masked_fill(holes, math.inf)
    places = [
        ((number + 0.5) * (new / old) - 0.5).round().long().clamp(0, new - 1)
        for number, old, new in zip(known.nonzero(as_tuple=True), known.shape, size, strict=True)
    ]
    result = flow.new_full((2, *size), math.inf)
    result[:, places[0], places[1]] = clean[:, known]
    return result


def reversed_flow(flow: Float[Tensor, "2 height width"]) -> Float[Tensor, "2 height width"]:
    """Maps the motion from the first frame to the second to that from the second to the first.

    Each pixel takes its motion along, back to front, to the pixel that is nearest to where it goes. Where none goes, or
    several that move apart by more than a pixel, one of which hides the other, the motion back is unknown.
    """
    height, width = flow.shape[1:]
    rows, columns = known_flow(flow).nonzero(as_tuple=True)
    motion = flow[:, rows, columns]
    to_columns, to_rows = (columns + motion[0]).round().long(), (rows + motion[1]).round().long()
    inside = (to_columns >= 0) & (to_columns < width) & (to_rows >= 0) & (to_rows < height)
    place, motion = (to_rows * width + to_columns)[inside], motion[:, inside]
    least = _least_by_place(motion, place, height * width)
    most = -_least_by_place(-motion, place, height * width)
    agree = (least.isfinite() & (most - least <= 1)).all(0)
    return (-(least + most) / 2).where(agree, math.inf).view(2, height, width)


def _least_by_place(
    motion: Float[Tensor, "2 pixels"], place: Int[Tensor, " pixels"], num_places: int
) -> Float[Tensor, "2 places"]:
    """Maps motion and where it leads to the least of each axis at each place; infinity where none leads."""
    none = motion.new_full((2, num_places), math.inf)
    return none.scatter_reduce(1, place.expand(2, -1), motion, "amin")


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _happens(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability
