"""Patches: inverses, order of the channels, and errors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.patches import extract_patches, patches_for_flow, reverse_space_to_depth, space_to_depth
from tests.unchecked import unchecked


@given(space=st.integers(1, 3), time=st.integers(1, 3))
def test_space_to_depth_and_back(space: int, time: int) -> None:
    image = torch.randn(2, 5, 3 * space, 4 * space)
    video = torch.randn(2, 2 * time, 5, 3 * space, 4 * space)
    assert torch.equal(reverse_space_to_depth(space_to_depth(image, space), space), image)
    assert torch.equal(reverse_space_to_depth(space_to_depth(video, space, time), space, time), video)
    assert space_to_depth(video, space, time).shape == (2, 2, 5 * space**2 * time, 3, 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 7, 8), r"block size \(4\) must divide the height \(7\)"),
        ((1, 3, 8, 9), r"block size \(4\) must divide the width \(9\)"),
        ((1, 3, 5, 8, 8), r"block size \(2\) must divide the time \(3\)"),
        ((3, 8, 8), r"must be images \[batch, channels, height, width\] or videos"),
    ],
)
def test_space_to_depth_errors(shape: tuple[int, ...], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        space_to_depth(torch.zeros(shape), 4, 2)


def test_patches_hold_row_column_channel() -> None:
    image = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    patches = extract_patches(image, (2, 3))
    expected = image[0, :, 1:3, 1:4].permute(1, 2, 0).flatten()
    assert torch.equal(patches[0, :, 1, 1], expected)


def test_patches_for_flow_surround_each_pixel() -> None:
    frames = torch.randn(1, 2, 3, 5, 6)
    patches = patches_for_flow(frames)
    assert torch.equal(patches[:, :, 4 * 3 : 5 * 3], frames)  # the centre of the 3×3
    assert patches[0, 0, :3, 0].eq(0).all()  # above the first row


def test_patch_errors() -> None:
    with pytest.raises(ValueError, match="are smaller than a patch"):
        extract_patches(torch.zeros(1, 3, 2, 2), (3, 3))
    with unchecked(), pytest.raises(ValueError, match="padding \\('FULL'\\) must be 'VALID' or 'SAME'"):
        extract_patches(torch.zeros(1, 3, 2, 2), (1, 1), padding="FULL")  # type: ignore[arg-type]
