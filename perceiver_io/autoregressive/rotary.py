"""Rotary position encoding: queries and keys turned by angles that grow with their positions (arXiv 2104.09864).

A score then depends on how far apart query and key are. Perceiver AR turns a fraction of the channels of a fraction of
the heads, and its frequencies are its own: they run from 1 to exactly 1/max_wavelength. Angles, sines and cosines are
computed in float32 whatever the model's precision is: at position 131,071 an ulp of a frequency is 7e-3 in a cosine.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from perceiver_io.position_encoding import linspace

Frequencies = Literal["perceiver_ar", "standard"]


class Rotation(NamedTuple):
    """How far the channels of each position are turned.

    Attributes:
        cosines: [batch, 1, positions, pairs], float32.
        sines: likewise.
        heads: [heads, 1, 1], True where a head is turned; None for all.
    """

    cosines: Float32[Tensor, "#batch 1 positions pairs"]
    sines: Float32[Tensor, "#batch 1 positions pairs"]
    heads: Bool[Tensor, "heads 1 1"] | None = None


@dataclass(frozen=True)
class Rotations:
    """The rotations of queries and of keys, as `attention.Attention` takes them."""

    queries: Rotation
    keys: Rotation

    def __call__(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Turns projected queries and keys."""
        return rotate(query, self.queries), rotate(key, self.keys)


def rotate(
    x: Float[Tensor, "batch heads positions channels"], rotation: Rotation
) -> Float[Tensor, "batch heads positions channels"]:
    """Turns the first channels, pair by pair of neighbours; the others stay as they are."""
    cosines, sines, heads = rotation
    turned = 2 * cosines.shape[-1]
    first, second = x[..., :turned:2], x[..., 1:turned:2]
    pairs = torch.stack([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    rotated = pairs.flatten(-2).to(x.dtype)
    if turned < x.shape[-1]:
        rotated = torch.cat([rotated, x[..., turned:]], dim=-1)
    return rotated if heads is None else torch.where(heads, rotated, x)


class Rotary(nn.Module):
    """Maps positions to the rotation of one kind of attention.

    Source: the reference's `_make_rotation_matrices` and `_apply_rotary_encoding_to_subset`.

    Args:
        num_heads: of the attention.
        head_channels: width of a head's queries and keys.
        max_wavelength: positions per radian of the slowest pair (of "standard" ones, nearly).
        channels_fraction: of a head's channels, the fraction that is turned; their number is rounded down to an even
            one.
        heads_fraction: of the heads, the fraction that is turned, the first ones; their number is rounded down.
        head_group_size: apply `heads_fraction` within each group of so many heads; None for one group.
        frequencies: "perceiver_ar": the reference's, w_i = max_wavelength^(-(i/(K-1))); "standard": those of everybody
            else, max_wavelength^(-i/K), for i in 0…K-1 and K pairs.
    """

    def __init__(
        self,
        num_heads: int,
        head_channels: int,
        *,
        max_wavelength: int,
        channels_fraction: float = 1.0,
        heads_fraction: float = 1.0,
        head_group_size: int | None = None,
        frequencies: Frequencies = "perceiver_ar",
    ) -> None:
        super().__init__()
        pairs = int(head_channels * channels_fraction / 2)
        make = perceiver_ar_frequencies if frequencies == "perceiver_ar" else standard_frequencies
        # Kept as integers, which no change of the model's precision rounds.
        bits = make(pairs, max_wavelength).view(torch.int32)
        device = torch.get_default_device()
        self.register_buffer("frequency_bits", bits if device.type == "meta" else bits.to(device), persistent=False)
        group = head_group_size or num_heads
        turned = int(heads_fraction * group)
        self.heads = None if turned == group else (num_heads, group, turned)

    def forward(self, positions: Int[Tensor, "#batch positions"]) -> Rotation:
        """Maps positions, which may be negative, to how far they are turned."""
        frequencies = self.get_buffer("frequency_bits").view(torch.float32)
        angles = positions.to(torch.float32)[:, None, :, None] * frequencies
        heads = None
        if self.heads is not None:
            num_heads, group, turned = self.heads
            heads = (torch.arange(num_heads, device=positions.device) % group < turned)[:, None, None]
        return Rotation(angles.cos(), angles.sin(), heads)


def perceiver_ar_frequencies(pairs: int, max_wavelength: int) -> Float32[Tensor, "pairs"]:
    """The reference's frequencies, bit for bit: 1 to 1/max_wavelength, both included.

    QUIRK: the exponents are those of `linspace(0, K, K)`, not 0…K - 1. The power is taken in float64: in float32 it is
    an ulp off for some.
    """
    steps = linspace(0.0, float(pairs), pairs) if pairs else torch.empty(0, device="cpu")
    exponents = torch.tensor(1 / max(1, pairs), dtype=torch.float32, device="cpu") * steps
    power = torch.tensor(float(max_wavelength), dtype=torch.float64, device="cpu") ** exponents.double()
    return 1 / power.float()


def standard_frequencies(pairs: int, max_wavelength: int) -> Float32[Tensor, "pairs"]:
    """The frequencies of the paper on rotary encoding (and of krasserm's models, with 10,000)."""
    exponents = torch.arange(0, 2 * pairs, 2, dtype=torch.float32, device="cpu") / (2 * max(1, pairs))
    return 1 / (max_wavelength**exponents)
