"""Augmented pairs: the motion still leads from the first frame to the second, and RAFT's settings are RAFT's."""

import colorsys
import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.training.flow_augmentation import (
    ColorJitter,
    FlowAugmentation,
    cropped,
    known_flow,
    raft_chairs,
    raft_kitti,
    raft_sintel,
    raft_things,
    resized_flow,
    reversed_flow,
    turned_hue,
)

HEIGHT, WIDTH, SIZE = 46, 58, (24, 30)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texture(x: Tensor, y: Tensor) -> Tensor:
    """Three slow waves, which interpolation keeps."""
    return torch.stack([torch.sin(x / 5) * torch.cos(y / 6), torch.sin((x + y) / 7), torch.cos((2 * x - y) / 9)]) / 2


def moving_pair() -> dict[str, Tensor]:
    """A texture that stretches and shifts: what is at (x, y) goes to (x + 3 + x / 20, y - 2 + y / 30)."""
    y, x = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    flow = torch.stack([3 + x / 20, -2 + y / 30])
    return {"frame1": texture(x, y), "frame2": texture((x - 3) / 1.05, (y + 2) * 30 / 31), "flow": flow}


def error_of_warping(pair: dict[str, Tensor]) -> float:
    """Greatest difference between the first frame and the second one where the motion leads, if that is inside."""
    height, width = pair["flow"].shape[1:]
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    to_x, to_y = torch.stack([x, y]) + pair["flow"]
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    assert inside.float().mean() > 0.4
    grid = torch.stack([2 * to_x / (width - 1) - 1, 2 * to_y / (height - 1) - 1], dim=-1).nan_to_num(posinf=0)
    warped = F.grid_sample(pair["frame2"][None], grid[None], align_corners=True)[0]
    return float((warped - pair["frame1"])[:, inside].abs().max())


GEOMETRY = FlowAugmentation(
    size=SIZE, scale_probability=1.0, mirror=(0.5, 0.5), jitter=None, hide_probability=0.0, scale=(-0.6, 0.6)
)


def test_the_motion_still_leads_to_the_second_frame() -> None:
    assert error_of_warping(moving_pair()) < 0.01
    for seed in range(30):
        augmented = GEOMETRY(moving_pair(), generator(seed))
        assert {name: part.shape[1:] for name, part in augmented.items()} == dict.fromkeys(augmented, SIZE)
        assert error_of_warping(augmented) < 0.02


@pytest.mark.parametrize("mirror", list(itertools.product((0.0, 1.0), repeat=2)))
def test_scaling_scales_motion_and_mirrors_negate_it(mirror: tuple[float, float]) -> None:
    augmentation = dataclasses.replace(GEOMETRY, scale=(1.0, 1.0), stretch_probability=0.0, mirror=mirror)
    pair = {**moving_pair(), "flow": torch.tensor([3.0, -2.0])[:, None, None].expand(2, HEIGHT, WIDTH)}
    flow = augmentation(pair, generator())["flow"]
    expected = torch.tensor([6.0 * (1 - 2 * mirror[0]), -4.0 * (1 - 2 * mirror[1])])
    assert flow.equal(expected[:, None, None].expand(2, *SIZE))


def test_axes_have_scales_of_their_own() -> None:
    augmentation = dataclasses.replace(GEOMETRY, mirror=(0.0, 0.0), stretch_probability=1.0, scale=(0.5, 0.5))
    pair = {**moving_pair(), "flow": torch.ones(2, HEIGHT, WIDTH)}
    scales = torch.stack([augmentation(pair, generator(seed))["flow"][:, 0, 0] for seed in range(40)]).log2() - 0.5
    assert scales.abs().max() < 0.22  # 0.2, and the rounding to whole pixels
    assert (scales[:, 0] - scales[:, 1]).abs().max() > 0.1


def test_a_crop_is_never_larger_than_the_scaled_frames() -> None:
    augmentation = dataclasses.replace(GEOMETRY, scale=(-5.0, -5.0))
    assert augmentation(moving_pair(), generator())["flow"].shape[1:] == SIZE


def test_a_pair_that_is_smaller_than_the_crop() -> None:
    with pytest.raises(ValueError, match="a pair of 46×58 pixels is smaller than the crop of 47×5; take a smaller"):
        cropped((47, 5))(moving_pair(), generator())


def test_a_draw_gives_one_result() -> None:
    augmentation = raft_sintel(SIZE)
    first, second, third = (augmentation(moving_pair(), generator(seed)) for seed in (3, 3, 4))
    assert all(first[name].equal(second[name]) for name in first)
    assert not first["frame1"].equal(third["frame1"])


def test_the_pair_itself_stays_as_it_is() -> None:
    pair, copy = moving_pair(), moving_pair()
    for seed in range(5):
        raft_things(SIZE)(pair, generator(seed))
    assert all(pair[name].equal(copy[name]) for name in pair)


def test_patches_of_the_second_frame_have_its_mean_colour() -> None:
    augmentation = dataclasses.replace(cropped((HEIGHT, WIDTH)), hide_probability=1.0, hidden=(5, 9))
    pair = moving_pair()
    numbers = []
    for seed in range(40):
        augmented = augmentation(pair, generator(seed))
        changed = (augmented["frame2"] != pair["frame2"]).any(0)
        mean = pair["frame2"].mean((1, 2))[:, None]
        assert torch.allclose(augmented["frame2"][:, changed], mean.expand(3, int(changed.sum())))
        numbers.append(int(changed.sum()))
        assert augmented["frame1"].equal(pair["frame1"])
        assert augmented["flow"].equal(pair["flow"])
    assert max(numbers) <= 2 * 81
    assert max(numbers) > 81


def test_colours_change_alike_or_apart() -> None:
    pair = moving_pair() | {"frame2": moving_pair()["frame1"]}
    only_colours = dataclasses.replace(cropped((HEIGHT, WIDTH)), jitter=ColorJitter())
    for share in (0.0, 1.0):
        augmented = dataclasses.replace(only_colours, separate_probability=share)(pair, generator(1))
        assert not augmented["frame1"].equal(pair["frame1"])
        assert augmented["frame1"].equal(augmented["frame2"]) == (share == 0)
        assert augmented["frame1"].abs().max() <= 1


def test_hues_turn_as_in_the_standard_library() -> None:
    colours = torch.rand(1, 3, 4, 5, generator=generator())
    colours[0, :, 0, 0] = 0.5  # grey has no hue
    turned = turned_hue(colours, 0.23)
    for y, x in itertools.product(range(4), range(5)):
        hue, saturation, value = colorsys.rgb_to_hsv(*colours[0, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb((hue + 0.23) % 1, saturation, value)
        assert turned[0, :, y, x].tolist() == pytest.approx(expected, abs=1e-5)


class TestUnknownMotion:
    @pytest.mark.parametrize("size", [(92, 116), (31, 37), (46, 90)])
    @pytest.mark.parametrize("known_share", [0.03, 0.97])
    def test_it_does_not_mix_with_known_motion(self, size: tuple[int, int], known_share: float) -> None:
        known = torch.rand(HEIGHT, WIDTH, generator=generator()) < known_share
        flow = torch.tensor([4.0, -6.0])[:, None, None].where(known, math.inf)
        scaled = resized_flow(flow, size)
        expected = torch.tensor([4 * size[1] / WIDTH, -6 * size[0] / HEIGHT])
        found = scaled[:, known_flow(scaled)]
        assert torch.allclose(found, expected[:, None])
        # Next to nothing of the known motion is lost.
        assert found.shape[1] >= (0.9 * int(known.sum()) if known_share < 0.5 else 0.7 * size[0] * size[1])

    def test_few_known_pixels_go_where_they_are_seen(self) -> None:
        flow = torch.full((2, 10, 12), math.inf)
        flow[:, 3, 5] = torch.tensor([1.0, 2.0])
        scaled = resized_flow(flow, (30, 36))
        assert known_flow(scaled).nonzero().tolist() == [[10, 16]]  # the middle of nine
        assert scaled[:, 10, 16].tolist() == [3.0, 6.0]

    def test_it_stays_unknown_in_mirrors(self) -> None:
        flow = moving_pair()["flow"].clone()
        flow[:, ::2] = math.inf
        augmented = dataclasses.replace(GEOMETRY, scale_probability=0.0, mirror=(1.0, 1.0))(
            {**moving_pair(), "flow": flow}, generator()
        )
        assert known_flow(augmented["flow"]).float().mean() == 0.5


class TestReversed:
    def test_a_shift_is_reversed(self) -> None:
        flow = torch.tensor([3.0, -2.0])[:, None, None].expand(2, 8, 11)
        back = reversed_flow(flow)
        assert known_flow(back).equal(torch.arange(11).ge(3) & torch.arange(8).lt(6)[:, None])
        assert back[:, 0, 3].tolist() == [-3.0, 2.0]

    def test_the_way_back_leads_to_the_first_frame(self) -> None:
        pair = moving_pair()
        back = {"frame1": pair["frame2"], "frame2": pair["frame1"], "flow": reversed_flow(pair["flow"])}
        assert error_of_warping(back) < 0.02

    def test_where_one_thing_hides_another_it_is_unknown(self) -> None:
        flow = torch.zeros(2, 1, 6)
        flow[0, 0, 0] = 4.0  # goes to where another pixel stays
        back = reversed_flow(flow)
        assert known_flow(back)[0].tolist() == [False, True, True, True, False, True]

    def test_unknown_motion_leads_nowhere(self) -> None:
        flow = torch.zeros(2, 2, 3)
        flow[:, 0, 1], flow[1, 1, 2] = math.inf, 2e9
        assert known_flow(reversed_flow(flow)).equal(known_flow(flow))


def test_rafts_stages() -> None:
    scales = [stage(SIZE).scale for stage in (raft_chairs, raft_things, raft_sintel, raft_kitti)]
    assert scales == [(-0.1, 1.0), (-0.4, 0.8), (-0.2, 0.6), (-0.2, 0.4)]
    for stage in (raft_chairs, raft_things, raft_sintel):
        made = stage(SIZE)
        assert (made.stretch, made.scale_probability, made.stretch_probability) == (0.2, 0.8, 0.8)
        assert (made.mirror, made.separate_probability, made.hide_probability) == ((0.5, 0.1), 0.2, 0.5)
        assert made.hidden == (50, 99)  # its code excludes 100
        assert made.jitter == ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5 / 3.14)
    assert raft_kitti(SIZE).mirror == (0.0, 0.0)
