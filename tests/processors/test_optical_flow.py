"""Frames as the optical flow colab normalises them, and flow as colours and arrays."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.media import flow_to_image
from perceiver_io.processors import FlowProcessor


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_values_are_the_colabs(tmp_path: Path) -> None:
    frames = noise(0, 2, 24, 35, 3)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    # The colab reads with OpenCV (BGR to RGB) and normalises to -1…1.
    expected = [cv2.imread(str(tmp_path / f"{number}.png"))[:, :, ::-1] / 255.0 * 2 - 1 for number in range(2)]
    pairs = FlowProcessor()(tmp_path / "0.png", tmp_path / "1.png")
    for prepared, frame in zip(pairs, expected, strict=True):
        assert prepared.shape == (1, 3, 24, 35)
        assert (prepared[0].permute(1, 2, 0).numpy() == frame.astype(np.float32)).all()


def test_pairs_can_be_batched_in_any_form() -> None:
    frames = noise(1, 4, 24, 35, 3)
    arrays = FlowProcessor()(frames[:2], frames[2:])
    tensors = FlowProcessor()(*torch.from_numpy(frames).permute(0, 3, 1, 2).split(2))
    images = FlowProcessor()(*([Image.fromarray(frame) for frame in half] for half in (frames[:2], frames[2:])))
    for other in (tensors, images):
        assert all(torch.equal(one, two) for one, two in zip(arrays, other, strict=True))
    assert arrays.frame1.shape == (2, 3, 24, 35)


def test_frames_must_match() -> None:
    with pytest.raises(ValueError, match="2 first and 1 second frames"):
        FlowProcessor()(noise(0, 2, 8, 9, 3), noise(0, 8, 9, 3))
    with pytest.raises(ValueError, match="the frames have 8×9 and 9×8 pixels"):
        FlowProcessor()(noise(0, 8, 9, 3), noise(0, 9, 8, 3))


def test_flow_becomes_pictures_and_arrays() -> None:
    flow = torch.randn(2, 2, 5, 7)
    processor = FlowProcessor()
    for one, picture, array in zip(flow, processor.pictures(flow), processor.arrays(flow.bfloat16()), strict=True):
        assert (picture == flow_to_image(one)).all()
        assert array.shape == (5, 7, 2)
        assert (array == one.bfloat16().float().permute(1, 2, 0).numpy()).all()
    assert (processor.pictures(flow, 99.0)[0] == flow_to_image(flow[0], 99.0)).all()
