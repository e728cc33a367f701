"""Frames for optical flow, and Middlebury's .flo files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

# The four bytes "PIEH" read as a little-endian float: Middlebury's check of the byte order.
_FLO_MAGIC = np.float32(202021.25)
_MAX_SIDE = 99_999


def prepare_frame(frame: UInt8[np.ndarray, "height width 3"]) -> Float32[Tensor, "3 height width"]:
    """Frame with values 0…255 → the same size with values -1…1, as the optical flow colab's `normalize`."""
    # In float64 and rounded once, as the colab's numpy does.
    scaled = (frame / 255.0 * 2 - 1).astype(np.float32)
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def write_flo(path: str | Path, flow: Float[Tensor, "2 height width"]) -> None:
    """Flow (x, y) in pixels → a .flo file: magic number, width, height, then x, y of each pixel row by row.

    Raises:
        ValueError: the flow is not [2, height, width] with sides of at least 1.
    """
    if flow.ndim != 3 or flow.shape[0] != 2 or flow.numel() == 0:
        raise ValueError(f"flow of shape {tuple(flow.shape)} cannot be a .flo file; it must be [2, height, width]")
    _, height, width = flow.shape
    interleaved = flow.detach().to("cpu", torch.float32).permute(1, 2, 0).contiguous().numpy()
    with Path(path).open("wb") as file:
        file.write(_FLO_MAGIC.astype("<f4").tobytes())
        file.write(np.array([width, height], dtype="<i4").tobytes())
        file.write(interleaved.astype("<f4").tobytes())


def read_flo(path: str | Path) -> Float32[Tensor, "2 height width"]:
    """A .flo file → flow (x, y) in pixels. Values above 1e9 mark pixels whose flow is unknown.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a .flo file, or one that is cut short or too long for its size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no flow file at {path}")
    content = path.read_bytes()
    if len(content) < 12 or np.frombuffer(content, "<f4", count=1)[0] != _FLO_MAGIC:
        raise ValueError(f"{path} is not a .flo file: it must start with the bytes 'PIEH'")
    width, height = (int(side) for side in np.frombuffer(content, "<i4", count=2, offset=4))
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise ValueError(f"{path} claims {height}×{width} pixels; each side must be 1 to {_MAX_SIDE}")
    expected = 12 + 8 * width * height
    if len(content) != expected:
        raise ValueError(f"{path} holds {len(content)} bytes; {height}×{width} pixels of flow take {expected}")
    interleaved = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    return torch.from_numpy(interleaved).permute(2, 0, 1).contiguous()
