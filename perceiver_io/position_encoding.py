"""Position encodings: where an input or an output lies, as channels (paper, supplement D).

Every encoding is called with the `Points` it is wanted at:

* `None`, all points of the grid; a `slice`, some of them, in row-major order;
* integers, flat row-major indices, [points] or one set per example [batch, points];
* floats, coordinates of your own, nominally in -1…1, [batch, points, dimensions].

The result has batch size 1 where it is the same for all examples.

QUIRK: the grid spans -1…1 with both ends included, but an index c on an axis of n lies at -1 + 2c/n, which is not on
that grid. The released video model was trained and is used with indices.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.checks import check_batch, check_points, has_values
from perceiver_io.initializers import haiku_linear, truncated_normal_

# Cached sines and cosines of a grid: 1 GiB in float32. The released video model has 0.8 million of them.
_MOST_TABLE_NUMEL = 2**28

Points: TypeAlias = Int[Tensor, "... _"] | Float[Tensor, "_ _ _"] | slice | None


def linspace(start: float, stop: float, num: int) -> Float32[Tensor, "num"]:
    """Maps two ends to `num` evenly spaced values between them, bit for bit as `jax.numpy.linspace` in float32.

    `torch.linspace` and `numpy.linspace` differ by an ulp, which the audio frequencies turn into 1e-2.
    """
    if num == 1:
        return torch.tensor([start], dtype=torch.float32, device="cpu")
    interval = 1.0 / torch.tensor(num - 1.0, dtype=torch.float32, device="cpu")
    step = torch.arange(num, dtype=torch.float32, device="cpu") * interval
    values = start * (1 - step) + stop * step
    values[-1] = stop
    return values


def sampled_positions(num: int) -> Float32[Tensor, "num"]:
    """Maps the size of an axis to the coordinates -1 + 2c/num of its indices, bit for bit as the reference has them.

    QUIRK: XLA divides by multiplying with the reciprocal, which is an ulp off the quotient for some.
    """
    indices = torch.arange(num, dtype=torch.float32, device="cpu")
    return -1 + 2 * indices * (1.0 / torch.tensor(float(num), dtype=torch.float32, device="cpu"))


def linear_positions(index_dims: Sequence[int]) -> Float32[Tensor, "*index_dims dimensions"]:
    """Maps the sizes of a grid to the coordinates of its points, each axis spanning -1…1.

    Source: the reference's `build_linear_positions`.
    """
    axes = [linspace(-1.0, 1.0, num) for num in index_dims]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def select_rows(rows: Float[Tensor, "#batch rows channels"], points: Points) -> Float[Tensor, "#batch points channels"]:
    """Maps rows to those at `points` (all, a slice, or flat indices shared or per example)."""
    check_points(points)
    if points is None:
        return rows
    if isinstance(points, slice):
        return rows[:, points]
    if points.is_floating_point():
        raise ValueError("points given as coordinates need a Fourier encoding; give integer indices of rows instead")
    check_indices(points, rows.shape[1])
    if points.ndim == 1:
        return rows[:, points]
    check_batch("points", points.shape[0], "inputs", rows.shape[0], one_for_all=True)
    return torch.take_along_dim(rows, points.unsqueeze(-1), dim=1)


class PositionEncoding(nn.Module):
    """Base of encodings: maps points to channels."""

    @property
    def num_channels(self) -> int:
        """Channels of the encoding."""
        raise NotImplementedError

    @property
    def num_points(self) -> int:
        """Points of the grid."""
        raise NotImplementedError

    def forward(
        self, points: Points = None, index_dims: Sequence[int] | None = None
    ) -> Float[Tensor, "#batch points channels"]:
        """Encodes `points` of the grid of sizes `index_dims` (default: that of the constructor)."""
        raise NotImplementedError


class FourierPositionEncoding(PositionEncoding):
    """Maps points to their coordinates and to sines and cosines of these at linearly spaced frequencies.

    Channels: coordinates (one per axis), all sines (axis by axis), all cosines (axis by axis). Frequencies run from 1
    to half the resolution (the Nyquist frequency). Everything is computed in float32, then cast to the module's dtype.
    Source: the reference's `FourierPositionEncoding`; paper, supplement D.

    Args:
        index_dims: sizes of the grid; a call may name others.
        num_bands: frequencies per axis.
        max_resolution: highest resolution that an axis is to tell apart; default the sizes of the grid.
        concat_pos: whether the coordinates themselves are included.
        sine_only: whether to leave out the cosines.
    """

    def __init__(
        self,
        index_dims: Sequence[int],
        *,
        num_bands: int,
        max_resolution: Sequence[int] | None = None,
        concat_pos: bool = True,
        sine_only: bool = False,
    ) -> None:
        super().__init__()
        if max_resolution is not None and len(max_resolution) != len(index_dims):
            raise ValueError(
                f"max_resolution {tuple(max_resolution)} must have one entry per axis of index_dims {tuple(index_dims)}"
            )
        if sum(index_dims) * (1 + 2 * num_bands) > _MOST_TABLE_NUMEL:
            raise ValueError(
                f"a grid of {tuple(index_dims)} with num_bands ({num_bands}) needs tables of more than "
                f"{_MOST_TABLE_NUMEL:,} numbers; a smaller grid or fewer bands must do"
            )
        self.index_dims = tuple(index_dims)
        self.num_bands = num_bands
        self.max_resolution = None if max_resolution is None else tuple(max_resolution)
        self.concat_pos = concat_pos
        self.sine_only = sine_only
        # A coordinate only ever meets the frequencies of its own axis, so that one small table per axis holds all
        # sines and cosines of the grid; another, those at its indices.
        for kind, tables in (
            ("axis", self._grid_tables(self.index_dims)),
            ("indices", self._sampled_tables(self.index_dims)),
        ):
            for axis, table in enumerate(tables):
                self.register_buffer(f"{kind}_{axis}", _as_new_tensor(table), persistent=False)

    @property
    def num_channels(self) -> int:
        return len(self.index_dims) * (self.concat_pos + (1 if self.sine_only else 2) * self.num_bands)

    @property
    def num_points(self) -> int:
        return math.prod(self.index_dims)

    def forward(
        self, points: Points = None, index_dims: Sequence[int] | None = None
    ) -> Float[Tensor, "#batch points channels"]:
        check_points(points)
        index_dims = self.index_dims if index_dims is None else tuple(index_dims)
        if len(index_dims) != len(self.index_dims):
            raise ValueError(
                f"index_dims {index_dims} must have {len(self.index_dims)} axes, as the encoding's {self.index_dims}"
            )
        like = self.get_buffer("axis_0")
        if isinstance(points, Tensor) and points.is_floating_point():
            return self._encode_coordinates(points, index_dims).to(like.dtype)
        if isinstance(points, Tensor):
            tables = self._kept("indices", self._sampled_tables, index_dims)
            encoded = self._combine([t[i] for t, i in zip(tables, unravel(points, index_dims), strict=True)])
            return encoded if points.ndim == 2 else encoded[None]
        tables = self._kept("axis", self._grid_tables, index_dims)
        if isinstance(points, slice):
            indices = torch.arange(math.prod(index_dims), device=like.device)[points]
            return self._combine([t[i] for t, i in zip(tables, unravel(indices, index_dims), strict=True)])[None]
        # Each axis's table is laid along its own axis of the grid and repeated along the others.
        grid = [
            table.reshape([-1 if a == axis else 1 for a in range(len(index_dims))] + [table.shape[-1]]).expand(
                *index_dims, -1
            )
            for axis, table in enumerate(tables)
        ]
        return self._combine(grid).reshape(1, math.prod(index_dims), self.num_channels)

    def _kept(
        self, kind: str, make: Callable[[Sequence[int]], list[Tensor]], index_dims: tuple[int, ...]
    ) -> list[Tensor]:
        """The tables of a grid: those at hand, or for another grid new ones, which a GPU waits for."""
        if index_dims == self.index_dims:
            return [self.get_buffer(f"{kind}_{axis}") for axis in range(len(index_dims))]
        return [table.to(self.get_buffer("axis_0")) for table in make(index_dims)]

    def _encode_coordinates(self, points: Tensor, index_dims: tuple[int, ...]) -> Tensor:
        if points.shape[-1] != len(index_dims):
            raise ValueError(f"points {tuple(points.shape)} must have {len(index_dims)} coordinates on the last axis")
        return self._combine(self._tables(points.float().unbind(-1), index_dims))

    def _combine(self, rows: Sequence[Tensor]) -> Tensor:
        """Orders the channels of the axes' rows (coordinate, sines, cosines): all of a kind stand together."""
        sizes = [1, self.num_bands] + ([] if self.sine_only else [self.num_bands])
        coordinates, *waves = zip(*(row.split(sizes, dim=-1) for row in rows), strict=True)
        kinds = [coordinates, *waves] if self.concat_pos else waves
        return torch.cat([part for kind in kinds for part in kind], dim=-1)

    def _grid_tables(self, index_dims: Sequence[int]) -> list[Tensor]:
        return self._tables([linspace(-1.0, 1.0, num) for num in index_dims], index_dims)

    def _sampled_tables(self, index_dims: Sequence[int]) -> list[Tensor]:
        return self._tables([sampled_positions(num) for num in index_dims], index_dims)

    def _tables(self, coordinates: Sequence[Tensor], index_dims: Sequence[int]) -> list[Tensor]:
        """Maps each axis's float32 coordinates [...] to [..., coordinate + sines (+ cosines)]."""
        tables = []
        for positions, resolution in zip(coordinates, self.max_resolution or index_dims, strict=True):
            bands = linspace(1.0, resolution / 2, self.num_bands).to(positions.device)
            angles = math.pi * (positions.unsqueeze(-1) * bands)
            waves = [angles.sin()] if self.sine_only else [angles.sin(), angles.cos()]
            tables.append(torch.cat([positions.unsqueeze(-1), *waves], dim=-1))
        return tables


class LearnedPositionEncoding(PositionEncoding):
    """Maps points to trained vectors, one per point of the grid.

    Source: the reference's `TrainablePositionEncoding`. DEVIATION: the reference returns all vectors whatever points
    are asked for; here integer points select theirs.

    Args:
        num_points: points of the grid.
        num_channels: channels of a vector.
        init_std: deviation of the truncated normal that they start from.
    """

    def __init__(self, num_points: int, num_channels: int, *, init_std: float = 0.02) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(truncated_normal_(torch.empty(num_points, num_channels), init_std))

    @property
    def num_channels(self) -> int:
        return self.embeddings.shape[1]

    @property
    def num_points(self) -> int:
        return self.embeddings.shape[0]

    def forward(
        self, points: Points = None, index_dims: Sequence[int] | None = None
    ) -> Float[Tensor, "#batch points channels"]:
        """Selects the vectors at `points`; a sequence (one index dimension) may be shorter than the table."""
        rows = self.embeddings[None]
        if index_dims is not None:
            # A sequence is cut without asking whether it needs that, which an export for any length could not answer.
            is_sequence, given = len(index_dims) == 1, math.prod(index_dims)
            if not (given <= self.num_points if is_sequence else given == self.num_points):
                raise ValueError(
                    f"inputs of sizes {tuple(index_dims)} have {given} points but {self.num_points} "
                    "positions were learned; resize the input or build the encoding with as many points"
                )
            if is_sequence:
                rows = rows[:, : index_dims[0]]
        return select_rows(rows, points)


class ProjectedPositionEncoding(PositionEncoding):
    """Maps points to a linear projection of another encoding of them.

    Source: the reference's `PositionEncodingProjector`.

    Args:
        base: the encoding to project.
        num_channels: channels of the result.
    """

    def __init__(self, base: PositionEncoding, num_channels: int) -> None:
        super().__init__()
        self.base = base
        self.projection = haiku_linear(base.num_channels, num_channels)

    @property
    def num_channels(self) -> int:
        return self.projection.out_features

    @property
    def num_points(self) -> int:
        return self.base.num_points

    def forward(
        self, points: Points = None, index_dims: Sequence[int] | None = None
    ) -> Float[Tensor, "#batch points channels"]:
        """Encodes `points` as the base does, then projects."""
        return self.projection(self.base(points, index_dims))


class ResidualMLPPositionEncoding(PositionEncoding):
    """Maps points to another encoding of them, deepened by residual linear layers with ReLU between.

    Each layer is `encoding + linear(encoding)`; all but the last are followed by a ReLU. Source: `n_extra_pos_mlp` of
    the reference's image and audio preprocessors.

    Args:
        base: the encoding to deepen.
        num_layers: number of layers.
    """

    def __init__(self, base: PositionEncoding, num_layers: int) -> None:
        super().__init__()
        self.base = base
        channels = base.num_channels
        self.layers = nn.ModuleList(haiku_linear(channels, channels) for _ in range(num_layers))

    @property
    def num_channels(self) -> int:
        return self.base.num_channels

    @property
    def num_points(self) -> int:
        return self.base.num_points

    def forward(
        self, points: Points = None, index_dims: Sequence[int] | None = None
    ) -> Float[Tensor, "#batch points channels"]:
        """Encodes `points` as the base does, then applies the layers."""
        encoding: Tensor = self.base(points, index_dims)
        for i, layer in enumerate(self.layers):
            encoding = encoding + layer(encoding)
            if i < len(self.layers) - 1:
                encoding = F.relu(encoding)
        return encoding


def unravel(indices: Int[Tensor, "*points"], index_dims: Sequence[int]) -> tuple[Int[Tensor, "*points"], ...]:
    """Maps flat row-major indices to one coordinate tensor per axis."""
    check_indices(indices, math.prod(index_dims))
    coordinates = []
    for size in reversed(index_dims):  # as torch.unravel_index, which copies the sizes to the device and waits for it
        coordinates.append(indices % size)
        indices = indices // size
    return tuple(reversed(coordinates))


def check_indices(indices: Int[Tensor, "..."], num_points: int) -> None:
    """Checks that flat indices lie in 0…num_points - 1, where that does not stop the device or a compiler.

    Raises:
        ValueError: if one does not.
    """
    if not has_values(indices):
        return
    least, most = indices.min().item(), indices.max().item()
    if least < 0 or most >= num_points:
        raise ValueError(f"points must lie in 0…{num_points - 1}, the grid's flat indices; got {least}…{most}")


def channels_of(module: nn.Module) -> int:
    """The number of channels that a featurizer, encoding or query yields."""
    num_channels = getattr(module, "num_channels", None)
    if not isinstance(num_channels, int):
        raise ValueError(
            f"{type(module).__name__} does not say how wide its rows are; give it an integer attribute num_channels"
        )
    return num_channels


def _as_new_tensor(table: Tensor) -> Tensor:
    """Gives a table the device and dtype of new tensors, except the meta device, which could not hold its values."""
    device = torch.get_default_device()
    return table.to("cpu" if device.type == "meta" else device, torch.get_default_dtype())
