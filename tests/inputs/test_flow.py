"""Frames for optical flow and .flo files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_io.inputs import prepare_frame, read_flo, write_flo
from tests.unchecked import unchecked


def test_frames_are_scaled_to_minus_one_to_one() -> None:
    frame = np.arange(2 * 128 * 3, dtype=np.uint64).reshape(2, 128, 3).astype(np.uint8)
    prepared = prepare_frame(frame)
    assert prepared.shape == (3, 2, 128)
    expected = (frame / 255.0 * 2 - 1).astype(np.float32)
    assert (prepared.permute(1, 2, 0).numpy() == expected).all()
    assert prepare_frame(np.array([[[0, 255, 51]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])


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
    with unchecked(), pytest.raises(ValueError, match=r"must be \[2, height, width\]"):
        write_flo(tmp_path / "bad.flo", torch.zeros(shape))
    assert not (tmp_path / "bad.flo").exists()
