"""Optical flow: .flo files and colours."""

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.media import flow_to_image, read_flo, read_kitti_flow, read_pfm_flow, write_flo
from tests.unchecked import unchecked


def test_reading_undoes_writing(tmp_path: Path) -> None:
    flow = torch.randn(2, 3, 5)
    write_flo(tmp_path / "motion.flo", flow)
    assert torch.equal(read_flo(tmp_path / "motion.flo"), flow)


def test_the_file_is_laid_out_as_middlebury_says(tmp_path: Path) -> None:
    flow = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    write_flo(tmp_path / "motion.flo", flow)
    expected = b"PIEH" + struct.pack("<ii", 3, 1) + struct.pack("<6f", 1, 4, 2, 5, 3, 6)
    assert (tmp_path / "motion.flo").read_bytes() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with the bytes 'PIEH'"),
        (b"PIEH", "must start with the bytes 'PIEH'"),
        (b"HEIP" + struct.pack("<ii", 1, 1) + bytes(8), "must start with the bytes 'PIEH'"),
        (b"PIEH" + struct.pack("<ii", 0, 4), "claims 4×0 pixels; each side must be 1 to 99999"),
        (b"PIEH" + struct.pack("<ii", 4, -1), "claims -1×4 pixels"),
        (b"PIEH" + struct.pack("<ii", 2, 1) + bytes(15), "holds 27 bytes; 1×2 pixels of flow take 28"),
        (b"PIEH" + struct.pack("<ii", 2, 1) + bytes(17), "holds 29 bytes; 1×2 pixels of flow take 28"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.flo").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_flo(tmp_path / "bad.flo")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no flow file at .*none\.flo"):
        read_flo(tmp_path / "none.flo")


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (2, 0, 5)])
def test_only_flow_can_be_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with unchecked(), pytest.raises(ValueError, match=r"must be a tensor \[2, height, width\]"):
        write_flo(tmp_path / "bad.flo", torch.zeros(shape))
    assert not (tmp_path / "bad.flo").exists()


def write_kitti_flow(path: Path, flow: torch.Tensor) -> None:
    """As KITTI's development kit says, by OpenCV, whose channels are blue, green, red; infinite flow is unknown."""
    known = flow.isfinite().all(0)
    values = np.zeros((*flow.shape[1:], 3), np.uint16)
    values[..., 2:0:-1] = (flow.where(known, 0.0) * 64 + 2**15).permute(1, 2, 0).numpy()
    values[..., 0] = known
    assert cv2.imwrite(str(path), values)


def test_kittis_flow_has_sixteen_bits_and_unknown_pixels(tmp_path: Path) -> None:
    flow = (torch.randn(2, 7, 11) * 5000).round().clamp(-32768, 32767) / 64
    flow[:, 2, 3] = torch.inf
    write_kitti_flow(tmp_path / "000000_10.png", flow)
    assert torch.equal(read_kitti_flow(tmp_path / "000000_10.png"), flow)


def test_other_files_are_not_kittis(tmp_path: Path) -> None:
    write_kitti_flow(tmp_path / "whole.png", torch.randn(2, 30, 40))
    Image.new("RGB", (4, 5)).save(tmp_path / "8bits.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    for name, message in (("8bits", "three channels of 16 bits"), ("cut", "cut.png is not a PNG file that FFmpeg")):
        with pytest.raises(ValueError, match=message):
            read_kitti_flow(tmp_path / f"{name}.png")
    with pytest.raises(FileNotFoundError, match=r"no flow file at .*none\.png"):
        read_kitti_flow(tmp_path / "none.png")


def colour(x: float, y: float, max_motion: float | None = None) -> list[int]:
    flow = torch.tensor([x, y], dtype=torch.float32).view(2, 1, 1)
    return flow_to_image(flow, max_motion)[0, 0].tolist()


def test_directions_have_middleburys_colours() -> None:
    # Right is red; the wheel's 55 colours follow clockwise on the screen, where y points down.
    assert colour(1, 0) == [255, 0, 0]
    assert colour(0, 1) == [255, 229, 0]  # 13.5 of the 15 steps from red to yellow
    assert colour(-1, -0.0) == colour(-1, 0)
    assert colour(-1, 0)[0] == 0
    assert colour(0, -1)[2] == 255


def test_speed_is_saturation() -> None:
    assert colour(0, 0) == [255, 255, 255]
    assert colour(0, 0, max_motion=4.0) == [255, 255, 255]
    assert colour(2, 0, max_motion=4.0) == [255, 127, 127]
    assert colour(5, 0, max_motion=4.0) == [191, 0, 0]


def test_the_fastest_motion_sets_the_scale() -> None:
    flow = torch.tensor([[[3.0, 6.0]], [[0.0, 0.0]]])
    assert flow_to_image(flow)[0].tolist() == [[255, 127, 127], [255, 0, 0]]


def test_unknown_motion_is_black_and_does_not_count() -> None:
    flow = torch.tensor([[[2.0, 1e10, float("nan"), float("inf")]], [[0.0, 0.0, 0.0, 1.0]]])
    assert flow_to_image(flow)[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"max_motion \(0\.0\) must be above 0 pixels"):
        flow_to_image(torch.zeros(2, 3, 4), 0.0)


def write_pfm(path: Path, flow: torch.Tensor, order: str = "<") -> None:
    """Writes flow as FlyingThings3D's owners do."""
    height, width = flow.shape[1:]
    values = np.zeros((height, width, 3), f"{order}f4")
    values[..., :2] = flow.permute(1, 2, 0).numpy()
    scale = "-1.0" if order == "<" else "1.0"
    path.write_bytes(f"PF\n{width} {height}\n{scale}\n".encode() + values[::-1].tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_is_read_from_the_bottom_up(order: str, tmp_path: Path) -> None:
    flow = torch.randn(2, 3, 5)
    write_pfm(tmp_path / "flow.pfm", flow, order)
    assert torch.equal(read_pfm_flow(tmp_path / "flow.pfm"), flow)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"holds \d+ bytes; 3×5 pixels of flow take \d+"),
        (lambda content: content + b"\0", r"holds \d+ bytes; 3×5 pixels of flow take \d+"),
        (lambda content: b"Pf" + content[2:], "is not a PFM file of flow: it must start with 'PF'"),
        (lambda content: content.replace(b"5 3", b"0 3"), "claims 3×0 pixels"),
        (lambda content: b"", "is not a PFM file of flow"),
    ],
)
def test_other_pfm_files_are_refused(change: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.pfm"
    write_pfm(path, torch.randn(2, 3, 5))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        read_pfm_flow(path)
    with pytest.raises(FileNotFoundError, match="no flow file at"):
        read_pfm_flow(tmp_path / "other.pfm")
