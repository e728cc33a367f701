"""Optical flow as Middlebury keeps and shows it, .flo files and colours, and as KITTI and FlyingThings3D keep it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from perceiver_io.media.border import check_size, reading, writing
from perceiver_io.optional import needs_extra

# The four bytes "PIEH" read as a little-endian float: Middlebury's check of the byte order.
_FLO_MAGIC = np.float32(202021.25)
_MAX_SIDE = 99_999
# Larger values mark pixels whose flow is unknown.
UNKNOWN_FLOW = 1e9
# Middlebury's colour wheel (Baker et al., "A Database and Evaluation Methodology for Optical Flow", 2007): the
# number of colours on the way from red to yellow, yellow to green, green to cyan, … and back to red.
_WHEEL_CORNERS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], dtype=np.float64)
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)


def write_flo(path: str | Path, flow: Float[Tensor, "2 height width"]) -> None:
    """Writes flow (x, y), in pixels, as a .flo file: magic number, width, height, then x, y of each pixel row by row.

    Raises:
        ValueError: the flow is not [2, height, width] with sides of at least 1.
        OSError: the file cannot be written.
    """
    _check_flow(flow)
    _, height, width = flow.shape
    interleaved = flow.detach().to("cpu", torch.float32).permute(1, 2, 0).contiguous().numpy()
    with writing(path) as temporary, temporary.open("wb") as file:
        file.write(_FLO_MAGIC.astype("<f4").tobytes())
        file.write(np.array([width, height], dtype="<i4").tobytes())
        file.write(interleaved.astype("<f4").tobytes())


def read_flo(path: str | Path) -> Float32[Tensor, "2 height width"]:
    """Reads the flow (x, y) of a .flo file, in pixels. Values above 1e9 mark pixels whose flow is unknown.

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


def read_kitti_flow(path: str | Path) -> Float32[Tensor, "2 height width"]:
    """Reads the flow (x, y) of one of KITTI's 16-bit PNG files, in pixels; pixels without flow become infinite.

    The file's first two channels are 64 times the motion plus 2^15, the third says whether it is known (KITTI's
    development kit, `readme.txt`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG file with three channels of 16 bits, or a damaged one.
        ImportError: PyAV is missing; it comes with the `examples` extra. Pillow reads 8 of the 16 bits.
    """
    with needs_extra("reading KITTI's flow"):
        import av
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no flow file at {path}")
    content = path.read_bytes()
    # Signature, length and name of the header, width, height, bits of a value, kind of colour: 2 is RGB.
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 26 or (content[24], content[25]) != (16, 2):
        raise ValueError(f"{path} is not KITTI's flow: it must be a PNG file with three channels of 16 bits")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    check_size(path, height, width)
    with reading(path, "a PNG file that FFmpeg can read"):
        (frame,) = av.CodecContext.create("png", "r").decode(av.Packet(content))
        values = frame.to_ndarray().astype(np.float32)
    flow = np.where(values[..., 2:] > 0, (values[..., :2] - 2**15) / 64, np.float32(np.inf))
    return torch.from_numpy(flow).permute(2, 0, 1).contiguous()


def read_pfm_flow(path: str | Path) -> Float32[Tensor, "2 height width"]:
    """Reads the flow (x, y) of a PFM file in colour, as in FlyingThings3D, in pixels; the third channel is left out.

    The file begins with "PF", its width and height, and a number whose sign tells the order of the bytes; then rows
    follow from the bottom up.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or one that is cut short or too long for its size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no flow file at {path}")
    content = path.read_bytes()
    header = re.match(rb"PF\s+(\d{1,5})\s+(\d{1,5})\s+([+-]?[\d.eE+-]{1,20})\s", content)
    if header is None:
        raise ValueError(f"{path} is not a PFM file of flow: it must start with 'PF', width, height and scale")
    width, height = int(header[1]), int(header[2])
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise ValueError(f"{path} claims {height}×{width} pixels; each side must be 1 to {_MAX_SIDE}")
    expected = header.end() + 12 * width * height
    if len(content) != expected:
        raise ValueError(f"{path} holds {len(content)} bytes; {height}×{width} pixels of flow take {expected}")
    kind = "<f4" if header[3].startswith(b"-") else ">f4"
    rows = np.frombuffer(content, kind, offset=header.end()).reshape(height, width, 3)[::-1]
    return torch.from_numpy(rows[..., :2].astype(np.float32)).permute(2, 0, 1).contiguous()


def _check_flow(flow: Tensor) -> None:
    if not isinstance(flow, Tensor) or flow.ndim != 3 or flow.shape[0] != 2 or 0 in flow.shape or flow.is_complex():
        kind = f"{flow.dtype} {tuple(flow.shape)}" if hasattr(flow, "shape") else f"a {type(flow).__name__}"
        raise ValueError(f"flow must be a tensor [2, height, width], x and y in pixels, not {kind}; take one example")


def _colour_wheel() -> Float[np.ndarray, "colours 3"]:
    """The 55 colours of Middlebury's wheel, values 0…1, by direction."""
    colours = []
    for corner, steps in enumerate(_WHEEL_STEPS):
        start, stop = _WHEEL_CORNERS[corner], _WHEEL_CORNERS[(corner + 1) % len(_WHEEL_CORNERS)]
        share = np.arange(steps)[:, None] / steps
        colours.append(start + (stop - start) * share)
    return np.concatenate(colours)


def flow_to_image(
    flow: Float[Tensor, "2 height width"], max_motion: float | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Maps flow to Middlebury's colours: hue is direction, saturation is speed; no motion is white, unknown is black.

    Args:
        flow: (x, y) in pixels. Values that are not finite or above 1e9 are unknown.
        max_motion: pixels that have full saturation; None takes the fastest motion of this flow. Faster motion
            is drawn darker.

    Raises:
        ValueError: the flow is not [2, height, width], or `max_motion` is not positive.
    """
    _check_flow(flow)
    if max_motion is not None and max_motion <= 0:
        raise ValueError(f"max_motion ({max_motion}) must be above 0 pixels; None takes the flow's own maximum")
    motion = flow.detach().to("cpu", torch.float64).numpy()
    known = np.isfinite(motion).all(0) & (np.abs(np.nan_to_num(motion)) <= UNKNOWN_FLOW).all(0)
    x, y = np.where(known, motion, 0.0)
    speed = np.hypot(x, y)
    fastest = max_motion or float(speed.max(initial=0.0)) or 1.0
    speed = (speed / fastest)[..., None]

    wheel = _colour_wheel()
    position = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    before = np.floor(position).astype(np.int64)
    share = (position - before)[..., None]
    hue = (1 - share) * wheel[before] + share * wheel[(before + 1) % len(wheel)]
    colour = np.where(speed <= 1, 1 - speed * (1 - hue), 0.75 * hue)
    image: UInt8[np.ndarray, "height width 3"] = np.where(known[..., None], 255 * colour, 0).astype(np.uint8)
    return image
