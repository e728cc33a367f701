"""Resizing against OpenCV itself, over sizes up and down, grey and colour."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_io.media import resize
from perceiver_io.media.resizing import Interpolation

FLAGS: dict[Interpolation, int] = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
SIDES = st.integers(1, 90)


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Noise on even seeds, a smooth picture on odd ones."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if seed % 2 == 0:
        return noise
    return cv2.GaussianBlur(noise, (5, 5), 2).reshape(noise.shape)


def differences(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    ours = resize(image, size, interpolation)
    theirs = cv2.resize(image, size[::-1], interpolation=FLAGS[interpolation]).reshape(ours.shape)
    return np.abs(ours.astype(int) - theirs)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3]), st.integers(0, 99))
@settings(deadline=None)
def test_linear_equals_opencv(
    height: int, width: int, new_height: int, new_width: int, channels: int, seed: int
) -> None:
    image = picture(height, width, channels, seed)
    assert differences(image, (new_height, new_width), "linear").max() == 0


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3]), st.integers(0, 99))
@settings(deadline=None)
def test_cubic_is_within_one_grey_level_of_opencv(
    height: int, width: int, new_height: int, new_width: int, channels: int, seed: int
) -> None:
    image = picture(height, width, channels, seed)
    assert differences(image, (new_height, new_width), "cubic").max() <= 1


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("old", "new"), [((256, 256), (224, 224)), ((160, 120), (224, 224)), ((448, 384), (224, 192)), ((28, 31), (56, 62))]
)
def test_usual_sizes(old: tuple[int, int], new: tuple[int, int], channels: int, interpolation: Interpolation) -> None:
    different = differences(picture(*old, channels, seed=4), new, interpolation)
    assert different.max() <= 1
    # Cubic: OpenCV's x86 packages round exact results (measured: 1e-5 of the values differ), its other builds
    # round the weights first (measured: 3.7e-2).
    assert (different > 0).mean() <= (0.0 if interpolation == "linear" else 0.05)


def test_the_same_size_is_a_copy() -> None:
    image = picture(5, 7, 3, seed=0)
    same = resize(image, (5, 7), "cubic")
    assert (same == image).all()
    assert not np.shares_memory(same, image)


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_sides_below_one_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"cannot resize 3×5 pixels to .*; every side must be at least 1"):
        resize(picture(3, 5, 3, seed=0), size, "linear")
