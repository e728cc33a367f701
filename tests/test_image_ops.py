"""Image operations: inverses, TensorFlow's padding, batch norm over steps, and errors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.image_ops import (
    BatchNorm,
    Conv2DDownsample,
    Conv3DUpsample,
    extract_patches,
    patches_for_flow,
    reverse_space_to_depth,
    same_padding,
    space_to_depth,
)
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


@given(size=st.integers(1, 50), kernel=st.integers(1, 9), stride=st.integers(1, 5))
def test_same_padding_yields_one_output_per_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    padded = size + before + after
    if padded >= kernel:
        assert (padded - kernel) // stride + 1 == -(-size // stride)


def test_224_pixels_become_56() -> None:
    assert Conv2DDownsample(3, 4).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 4, 56, 56)


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


def test_batch_norm_averages_are_unbiased_from_the_first_step_on() -> None:
    batch_norm = BatchNorm(3)
    batches = [torch.randn(4, 3, 5, 6) * 3 + 1 for _ in range(3)]
    for batch in batches:
        normalised = batch_norm(batch)
        torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    weights = torch.tensor([0.9**2, 0.9, 1.0])
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3), correction=0) for batch in batches])
    torch.testing.assert_close(batch_norm.mean.average, (weights[:, None] * means).sum(0) / weights.sum())
    torch.testing.assert_close(batch_norm.variance.average, (weights[:, None] * variances).sum(0) / weights.sum())
    assert batch_norm.mean.counter == 3


def test_a_new_batch_norm_can_be_evaluated() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(BatchNorm(3).eval()(x), x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("time", "space"), [(2, 4), (0, 3), (3, 1)])
def test_conv3d_upsample_sizes(time: int, space: int) -> None:
    module = Conv3DUpsample(5, 2, num_time_upsamples=time, num_space_upsamples=space)
    assert module(torch.randn(1, 3, 5, 2, 4)).shape == (1, 3 * 2**time, 2, 2 * 2**space, 4 * 2**space)
