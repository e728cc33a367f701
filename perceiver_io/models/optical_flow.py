"""Optical flow between two frames (paper, section 4.3)."""

import dataclasses
from itertools import pairwise, product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perceiver_io.checks import check_floats
from perceiver_io.models.config import DecoderConfig
from perceiver_io.patches import patches_for_flow
from perceiver_io.perceiver import PerceiverIO, Progress
from perceiver_io.position_encoding import FourierPositionEncoding
from perceiver_io.preprocessors import Patches, Preprocessor
from perceiver_io.queries import InputQuery

# Tiles of larger frames overlap by at least so many pixels (the reference's colab).
MIN_TILE_OVERLAP = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpticalFlowConfig(DecoderConfig):
    """Sizes of an `OpticalFlowPerceiver`; the defaults are the released model's (41.1M parameters).

    Attributes:
        image_size: height and width in pixels that the model is trained on; larger frames are tiled.
        num_bands: frequencies per axis of the Fourier encoding.
        featurizer_channels: channels that the two frames' 3×3 patches around a pixel are mixed to.
        flow_scale: pixels per unit of the decoder's output (0.2: the reference divides by 100 and multiplies by 20).
    """

    image_size: tuple[int, int] = (368, 496)
    num_bands: int = 64
    featurizer_channels: int = 64
    num_latents: int = 2048
    num_latent_channels: int = 512
    num_self_attends_per_block: int = 24
    num_blocks: int = 1
    num_self_attend_heads: int = 16
    flow_scale: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.flow_scale:
            raise ValueError(f"flow_scale ({self.flow_scale!r}) must be a finite number other than 0")


class OpticalFlowPerceiver(PerceiverIO):
    """Maps two frames to the motion of each pixel of the first. Source: the reference's `optical_flow` colab."""

    def __init__(self, config: OpticalFlowConfig) -> None:
        preprocessor = Preprocessor(
            Patches(3 * 3 * 3, temporal_downsample=2, num_channels=config.featurizer_channels),
            FourierPositionEncoding(config.image_size, num_bands=config.num_bands, max_resolution=config.image_size),
        )
        super().__init__(
            input_preprocessor=preprocessor,
            encoder=config.encoder(preprocessor.num_channels),
            output_query=InputQuery(preprocessor.num_channels),
            decoder=config.decoder(preprocessor.num_channels, 2, zero_init_output=True),
        )
        self.config = config

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self,
        frame1: Float[Tensor, "batch 3 height width"],
        frame2: Float[Tensor, "batch 3 height width"],
        chunk_size: int | None = None,
        progress: Progress = iter,
        points: Int[Tensor, "... points"] | None = None,
        tiles: tuple[int, int] | None = None,
    ) -> Float[Tensor, "batch 2 *points"]:
        """Maps frames with values in -1…1 to the flow (x, y) in pixels.

        Frames larger than `image_size` are covered with tiles; where these overlap, their flows are averaged with
        weights that fall linearly towards a tile's border.

        Args:
            chunk_size: decode at most so many pixels at a time, to save memory.
            progress: wraps the iteration over tiles, for instance `tqdm`.
            points: flat indices of the pixels to decode, for all examples or for each; only for frames of `image_size`.
            tiles: how many from top to bottom and from left to right, evenly spaced; None as in the reference's colab:
                as many as it takes, and the last ones at the border.

        Returns:
            [batch, 2, height, width], or [batch, 2, points] where `points` are given.

        Raises:
            ValueError: if the frames differ in shape or are smaller than `image_size`, or larger with `points`, or
                if so many tiles cannot cover them.
        """
        for name, frame in (("frame1", frame1), ("frame2", frame2)):
            check_floats(name, frame, ("batch", 3, "height", "width"), self.dtype)
        if frame1.shape != frame2.shape:
            raise ValueError(f"frames must have the same shape, got {tuple(frame1.shape)} and {tuple(frame2.shape)}")
        (height, width), (tile_height, tile_width) = frame1.shape[-2:], self.config.image_size
        if height < tile_height or width < tile_width:
            raise ValueError(
                f"frames of {height}×{width} pixels must be at least {tile_height}×{tile_width}; pad or resize them"
            )
        frames = torch.stack([frame1, frame2], dim=1)
        if (height, width) == (tile_height, tile_width):
            return self._tile_flow(frames, chunk_size, points)
        if points is not None:
            raise ValueError(
                f"points need frames of image_size ({tile_height}×{tile_width}), got {height}×{width}; crop these, "
                "or leave out points"
            )
        if tiles is None:
            starts = [tile_starts(height, tile_height), tile_starts(width, tile_width)]
        else:
            starts = [even_tile_starts(height, tile_height, tiles[0]), even_tile_starts(width, tile_width, tiles[1])]
        corners = list(product(*starts))
        weight = tile_weights(tile_height, tile_width, frames.device).to(frames.dtype)
        total = frames.new_zeros(frames.shape[0], 2, height, width)
        total_weight = frames.new_zeros(height, width)
        for top, left in progress(corners):
            tile = (..., slice(top, top + tile_height), slice(left, left + tile_width))
            total[tile] += self._tile_flow(frames[tile], chunk_size) * weight
            total_weight[tile] += weight
        return total / total_weight

    def _tile_flow(self, frames: Tensor, chunk_size: int | None, points: Tensor | None = None) -> Tensor:
        rows: Tensor = self.decode(self.encode(patches_for_flow(frames)), points, chunk_size=chunk_size)
        flow = rows.transpose(1, 2) * self.config.flow_scale
        return flow.unflatten(2, self.config.image_size) if points is None else flow


def tile_starts(size: int, tile_size: int, min_overlap: int = MIN_TILE_OVERLAP) -> list[int]:
    """Maps the size of an axis to where its tiles start: evenly, but none ends later than the axis does.

    Source: `compute_grid_indices` of the colab. QUIRK: as there, an axis may get one tile more than it needs.
    DEVIATION: where a tile of the colab would run past the border, it is moved back; and tiles that are not twice as
    large as the overlap overlap by half their size.
    """
    if size == tile_size:
        return [0]
    last = size - tile_size
    starts = range(0, size, tile_size - min(min_overlap, tile_size // 2))
    return sorted({*(min(start, last) for start in starts[:-1]), last})


def even_tile_starts(size: int, tile_size: int, number: int) -> list[int]:
    """Maps the size of an axis to where so many evenly spaced tiles start, the first and the last at the borders.

    Raises:
        ValueError: if they do not cover it.
    """
    last = size - tile_size
    starts = sorted({round(last * place / max(number - 1, 1)) for place in range(number)})
    if not starts or starts[-1] != last or any(b - a > tile_size for a, b in pairwise(starts)):
        raise ValueError(f"{number} tiles of {tile_size} pixels do not cover {size}; take more tiles")
    return starts


def tile_weights(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "height width"]:
    """The weight of a tile's pixels: their distance from the nearest border."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = torch.minimum(rows + 1, height - rows)
    columns = torch.minimum(columns + 1, width - columns)
    return torch.minimum(rows[:, None], columns[None, :]).float()
