"""Optical flow: pairs of frames → model input, flow → colours and arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from perceiver_io.media import flow_to_image
from perceiver_io.processors.pictures import Pictures, to_pixels
from perceiver_io.processors.preparation import prepare_frame


class FramePairs(NamedTuple):
    """What an `OpticalFlowPerceiver` reads: `model(*pairs)`."""

    frame1: Float32[Tensor, "batch 3 height width"]
    frame2: Float32[Tensor, "batch 3 height width"]


class FlowProcessor:
    """Maps pairs of frames to what an `OpticalFlowPerceiver` reads, and its flow to pictures (optical flow colab).

        processor = FlowProcessor()
        picture = processor.pictures(model(*processor("frame1.png", "frame2.png")))[0]

    Frames keep their size: the model covers large ones with tiles.
    """

    def __call__(self, first: Pictures, second: Pictures) -> FramePairs:
        """First and second frames → the model's input, a batch even of one pair.

        Args:
            first: one frame or several (see `to_pixels`), all of one size.
            second: as many.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a picture, or frames that differ in number or size.
        """
        pairs = [to_pixels(first), to_pixels(second)]
        if len(pairs[0]) != len(pairs[1]):
            raise ValueError(f"{len(pairs[0])} first and {len(pairs[1])} second frames; give as many of both")
        sizes = dict.fromkeys(f"{frame.shape[0]}×{frame.shape[1]}" for frames in pairs for frame in frames)
        if len(sizes) > 1:
            raise ValueError(f"the frames have {' and '.join(sizes)} pixels; all must have the same size")
        frame1, frame2 = (torch.stack([prepare_frame(frame) for frame in frames]) for frames in pairs)
        return FramePairs(frame1, frame2)

    def pictures(
        self, flow: Float[Tensor, "batch 2 height width"], max_motion: float | None = None
    ) -> list[UInt8[np.ndarray, "height width 3"]]:
        """The model's output → a picture of each flow in Middlebury's colours.

        Args:
            max_motion: pixels of motion with full colour; None takes the fastest of each.

        Raises:
            ValueError: `max_motion` is not positive.
        """
        return [flow_to_image(one, max_motion) for one in flow]

    def arrays(self, flow: Float[Tensor, "batch 2 height width"]) -> list[Float32[np.ndarray, "height width 2"]]:
        """The model's output → each flow as an array of (x, y) in pixels, as .flo files and OpenCV hold it."""
        return [one.permute(1, 2, 0).contiguous().numpy() for one in flow.detach().float().cpu()]
