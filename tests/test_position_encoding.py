"""Position encodings: which points give which rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.position_encoding import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
    PositionEncoding,
    ProjectedPositionEncoding,
    ResidualMLPPositionEncoding,
    linear_positions,
    linspace,
    sampled_positions,
)

GRID = (3, 4, 5)


def fourier(**options: bool) -> FourierPositionEncoding:
    return FourierPositionEncoding(GRID, num_bands=6, max_resolution=(7, 8, 9), **options)


def encodings() -> list[PositionEncoding]:
    return [
        fourier(),
        LearnedPositionEncoding(60, 7),
        ProjectedPositionEncoding(fourier(), 11),
        ResidualMLPPositionEncoding(LearnedPositionEncoding(60, 7), 2),
    ]


@pytest.mark.parametrize("encoding", encodings(), ids=lambda e: type(e).__name__)
def test_points(encoding: PositionEncoding) -> None:
    whole = encoding()
    assert whole.shape == (1, encoding.num_points, encoding.num_channels) == (1, 60, encoding.num_channels)
    torch.testing.assert_close(encoding(slice(7, 30, 2)), whole[:, 7:30:2])
    shared = torch.tensor([5, 0, 59])
    per_example = torch.stack([shared, shared.flip(0)])
    torch.testing.assert_close(encoding(per_example)[0], encoding(shared)[0])
    torch.testing.assert_close(encoding(per_example)[1], encoding(shared)[0].flip(0))


def test_the_grid_equals_its_coordinates_encoded() -> None:
    coordinates = linear_positions(GRID).reshape(1, -1, 3)
    torch.testing.assert_close(fourier()(coordinates), fourier()(), rtol=0, atol=0)


def test_indices_lie_on_their_own_grid() -> None:
    rows = torch.unravel_index(torch.arange(60), GRID)
    coordinates = torch.stack([sampled_positions(n)[i] for n, i in zip(GRID, rows, strict=True)], dim=-1)
    torch.testing.assert_close(fourier()(torch.arange(60)), fourier()(coordinates[None]), rtol=0, atol=0)
    assert not torch.allclose(fourier()(torch.arange(60)), fourier()())


@given(seed=st.integers(0, 2**16))
def test_coordinates_are_per_example(seed: int) -> None:
    torch.manual_seed(seed)
    points = torch.rand(2, 9, 3) * 2 - 1
    encoded = fourier()(points)
    torch.testing.assert_close(encoded[1:], fourier()(points[1:]))
    assert not torch.allclose(encoded[0], encoded[1])


@pytest.mark.parametrize(("concat_pos", "sine_only"), [(True, True), (True, False), (False, True), (False, False)])
def test_channels_of_the_variants(concat_pos: bool, sine_only: bool) -> None:
    encoding = fourier(concat_pos=concat_pos, sine_only=sine_only)
    assert encoding().shape[-1] == encoding.num_channels == 3 * (concat_pos + 6 * (1 if sine_only else 2))
    full = fourier()()
    kept = torch.cat([full[..., : 3 * concat_pos], full[..., 3 : 3 + 18 * (1 if sine_only else 2)]], dim=-1)
    torch.testing.assert_close(encoding(), kept)


def test_another_grid_and_default_resolution() -> None:
    encoding = FourierPositionEncoding((4, 5), num_bands=3)
    torch.testing.assert_close(encoding(index_dims=(6, 7)), FourierPositionEncoding((6, 7), num_bands=3)())
    with pytest.raises(ValueError, match=r"index_dims \(6, 7, 8\) must have 2 axes"):
        encoding(index_dims=(6, 7, 8))


@pytest.mark.parametrize("num", [1, 2, 3, 10])
def test_linspace_ends(num: int) -> None:
    values = linspace(-1.0, 1.0, num)
    assert len(values) == num
    assert values[0] == -1
    assert num == 1 or values[-1] == 1


def test_features_are_computed_in_float32_then_cast() -> None:
    encoding = FourierPositionEncoding((50,), num_bands=40, max_resolution=(5000,))
    expected = encoding().bfloat16()
    torch.testing.assert_close(encoding.bfloat16()(), expected, rtol=0, atol=0)
    indices = torch.arange(50)
    float32 = FourierPositionEncoding((50,), num_bands=40, max_resolution=(5000,))
    torch.testing.assert_close(encoding(indices), float32(indices).bfloat16(), rtol=0, atol=0)


def test_learned_rows_of_a_shorter_sequence() -> None:
    encoding = LearnedPositionEncoding(9, 4)
    torch.testing.assert_close(encoding(index_dims=(6,)), encoding()[:, :6])
    with pytest.raises(ValueError, match="have 10 points but 9 positions were learned"):
        encoding(index_dims=(10,))
    with pytest.raises(ValueError, match="have 8 points but 9 positions were learned"):
        encoding(index_dims=(2, 4))
    with pytest.raises(ValueError, match="points given as coordinates need a Fourier encoding"):
        encoding(torch.zeros(1, 3, 1))


def test_wrong_coordinates_and_resolution() -> None:
    with pytest.raises(ValueError, match="must have 3 coordinates on the last axis"):
        fourier()(torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match=r"max_resolution \(7,\) must have one entry per axis of index_dims \(3, 4\)"):
        FourierPositionEncoding((3, 4), num_bands=2, max_resolution=(7,))


def test_cached_features_are_not_saved_and_survive_the_meta_device() -> None:
    assert not fourier().state_dict()
    with torch.device("meta"):
        encoding = fourier()
    torch.testing.assert_close(encoding(), fourier()())
