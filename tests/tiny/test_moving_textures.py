"""Pairs of frames that are made up, against what they are said to be."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.tiny.moving_textures import MovingTextures
from perceiver_io.training import Draw


def moved_back(frame2: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The second frame at where each pixel of the first went, and whether that is inside."""
    height, width = flow.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([(x + flow[0]) / (width - 1), (y + flow[1]) / (height - 1)], dim=-1) * 2 - 1
    seen = F.grid_sample(frame2[None], places[None], mode="bicubic", align_corners=True)[0]
    return seen, (places.abs() <= 1).all(-1)


class TestMovingTextures:
    def test_the_motion_is_that_of_the_frames(self) -> None:
        pairs = MovingTextures(9, image_size=(48, 72))
        for seed in range(12):
            pair = pairs[Draw(0, seed)]
            seen, inside = moved_back(pair["frame2"], pair["flow"])
            error = (seen - pair["frame1"]).abs().amax(0)[inside]
            # But for what the second frame hides, and for interpolating across outlines.
            assert error.median() < 0.01
            assert (error < 0.03).float().mean() > 0.6
            unmoved = (pair["frame2"] - pair["frame1"]).abs().amax(0)
            assert unmoved.median() > 5 * error.median()

    def test_sizes_ranges_and_speeds(self) -> None:
        pairs = MovingTextures(9, image_size=(40, 56), max_speed=3.5)
        assert len(pairs) == 9
        speeds = []
        for seed in range(60):
            pair = pairs[Draw(5, seed)]
            assert {name: (*part.shape, part.dtype) for name, part in pair.items()} == {
                "frame1": (3, 40, 56, torch.float32),
                "frame2": (3, 40, 56, torch.float32),
                "flow": (2, 40, 56, torch.float32),
            }
            assert pair["frame1"].abs().amax() <= 1
            assert pair["frame1"].std() > 0.2
            speeds.append(pair["flow"].norm(dim=0))
        assert torch.stack(speeds).amax() <= 3.5 + 1e-4
        assert torch.stack(speeds).amax() > 3.2

    def test_there_are_several_motions(self) -> None:
        pairs = MovingTextures(9, image_size=(40, 56))
        for seed in range(20):
            flow = pairs[Draw(0, seed)]["flow"]
            jumps = flow.diff(dim=2).norm(dim=0)
            assert jumps.amax() > 5 * jumps.median()

    def test_an_example_depends_on_the_seed_alone(self) -> None:
        pairs = MovingTextures(9, image_size=(40, 56), lead_in=3)
        one, same, other = pairs[Draw(3, 5)], pairs[Draw(4, 5, step=3)], pairs[Draw(3, 6)]
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not any(torch.equal(one[name], other[name]) for name in one)

    def test_the_first_steps_are_easy(self) -> None:
        pairs = MovingTextures(9, image_size=(40, 56), max_speed=5.0, lead_in=3)
        for seed in range(20):
            flow = pairs[Draw(0, seed, step=2)]["flow"]
            assert torch.equal(flow, flow[:, :1, :1].expand_as(flow))
            assert 0 < flow[:, 0, 0].norm() <= 2.5 + 1e-4

    def test_speeds_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match=r"max_speed \(0.0\) must be above 0 pixels"):
            MovingTextures(9, max_speed=0.0)
