"""What the models read, against the colabs' recipes."""

import cv2
import numpy as np
import pytest
import torch

from perceiver_io.processors import centre_crop, prepare_audio, prepare_frame, prepare_image


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 3 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (33, 33), (225, 301)])
def test_preparation_follows_the_colab(shape: tuple[int, int]) -> None:
    image = gradient(*shape)
    # The colab's steps in its own arithmetic: crop to 224/256 of the shorter side, OpenCV bicubic, normalise.
    side = int(np.int32((224 / (224 + 32)) * np.float32(min(shape))))
    top, left = ((shape[0] - side) + 1) // 2, ((shape[1] - side) + 1) // 2
    crop = image[top : top + side, left : left + side]
    assert (centre_crop(image, (224, 224)) == crop).all()
    resized = cv2.resize(np.ascontiguousarray(crop), (224, 224), interpolation=cv2.INTER_CUBIC)
    expected = (resized - np.array([0.485, 0.456, 0.406]) * 255) / (np.array([0.229, 0.224, 0.225]) * 255)

    prepared = prepare_image(image)
    assert prepared.shape == (3, 224, 224)
    assert prepared.dtype == torch.float32
    one_grey_level = 1 / (255 * 0.224)
    difference = np.abs(prepared.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= one_grey_level + 1e-5
    assert (difference > 1e-5).mean() < 0.05


def test_values_are_normalised_by_imagenet_statistics() -> None:
    prepared = prepare_image(np.full((9, 9, 3), 255, np.uint8), (4, 4))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(prepared, expected[:, None, None].expand(3, 4, 4))


def test_an_oblong_size_crops_an_oblong_window() -> None:
    assert centre_crop(gradient(80, 160), (32, 16)).shape == (70, 35, 3)
    assert centre_crop(gradient(80, 160), (16, 32)).shape == (70, 140, 3)


def test_a_tiny_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="a picture of 1×9 pixels is too small to crop for 224×224"):
        prepare_image(gradient(1, 9))


def test_frames_are_scaled_to_minus_one_to_one() -> None:
    frame = np.arange(2 * 128 * 3, dtype=np.uint64).reshape(2, 128, 3).astype(np.uint8)
    prepared = prepare_frame(frame)
    assert prepared.shape == (3, 2, 128)
    expected = (frame / 255.0 * 2 - 1).astype(np.float32)
    assert (prepared.permute(1, 2, 0).numpy() == expected).all()
    assert prepare_frame(np.array([[[0, 255, 51]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_preparation_takes_the_first_channel_and_fits_the_length() -> None:
    sound = torch.rand(6, 2)
    assert torch.equal(prepare_audio(sound, 4), sound[:4, :1])
    assert torch.equal(prepare_audio(sound, 9), torch.cat([sound[:, :1], torch.zeros(3, 1)]))
    assert torch.equal(prepare_audio(torch.zeros(0, 1), 3), torch.zeros(3, 1))
