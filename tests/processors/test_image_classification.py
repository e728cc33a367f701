"""Pictures to logits' input as the ImageNet colab prepares them, and logits to names."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import perceiver_io
from perceiver_io.processors import ImageProcessor, imagenet_classes, prepare_image
from tests.small_models import SMALL


def waves(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 3 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def colab(image: np.ndarray) -> np.ndarray:
    """The colab's `resize_and_center_crop` and `normalize`, in OpenCV."""
    side = int((224 / (224 + 32)) * min(image.shape[:2]))
    top, left = ((image.shape[0] - side) + 1) // 2, ((image.shape[1] - side) + 1) // 2
    crop = np.ascontiguousarray(image[top : top + side, left : left + side])
    resized = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_CUBIC)
    normalised = (resized - np.array([0.485, 0.456, 0.406]) * 255) / (np.array([0.229, 0.224, 0.225]) * 255)
    return normalised.transpose(2, 0, 1)


def test_values_are_the_colabs(tmp_path: Path) -> None:
    pictures = [waves(40, 61), waves(225, 301), waves(256, 256)]
    Image.fromarray(pictures[0]).save(tmp_path / "picture.png")
    given = [tmp_path / "picture.png", Image.fromarray(pictures[1]), torch.from_numpy(pictures[2]).permute(2, 0, 1)]
    prepared = ImageProcessor((224, 224), imagenet_classes())(given)
    assert prepared.shape == (3, 3, 224, 224)
    # Cubic resizing may differ from this OpenCV's by one grey level in a few values (tests/media/test_resizing.py).
    difference = np.abs(prepared.numpy() - np.stack(list(map(colab, pictures))))
    assert difference.max() <= 1 / (255 * 0.224) + 1e-5
    assert (difference > 1e-5).mean() < 0.05


def test_sizes_and_names_come_from_the_model() -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])
    processor = ImageProcessor.for_model(model)
    prepared = processor(waves(30, 50))
    assert torch.equal(prepared[0], prepare_image(waves(30, 50), (19, 25)))
    predictions = processor.classes(model.eval()(prepared), top=3)
    assert [name.split()[0] for name, _ in predictions[0]] == ["class"] * 3
    names = [f"kind {index}" for index in range(11)]
    assert ImageProcessor.for_model(model, names).class_names == tuple(names)
    with pytest.raises(ValueError, match="2 class names for 11 classes"):
        ImageProcessor.for_model(model, ["cat", "dog"])


def test_a_thousand_classes_are_imagenets() -> None:
    model = perceiver_io.create_model("imagenet-fourier", **{**SMALL["imagenet-fourier"], "num_classes": 1000})
    assert ImageProcessor.for_model(model).class_names == imagenet_classes()
