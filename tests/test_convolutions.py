"""Convolutions: TensorFlow's padding, batch norm over steps, and sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.convolutions import BatchNorm, Conv2DDownsample, Conv3DUpsample, same_padding


@given(size=st.integers(1, 50), kernel=st.integers(1, 9), stride=st.integers(1, 5))
def test_same_padding_yields_one_output_per_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    padded = size + before + after
    if padded >= kernel:
        assert (padded - kernel) // stride + 1 == -(-size // stride)


def test_224_pixels_become_56() -> None:
    assert Conv2DDownsample(3, 4).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 4, 56, 56)


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
