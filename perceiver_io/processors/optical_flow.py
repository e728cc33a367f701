"""Optical flow: from pairs of frames to model input, from flow to colours and arrays."""

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
    """The input of an `OpticalFlowPerceiver`: `model(*pairs)`."""

    frame1: Float32[Tensor, "batch 3 height width"]
    frame2: Float32[Tensor, "batch 3 height width"]


class FlowProcessor:
    """Maps pairs of frames to what an `OpticalFlowPerceiver` reads, and its flow to pictures (optical flow colab).

        processor = FlowProcessor()
        picture = processor.pictures(model(*processor("frame1.png", "frame2.png")))[0]

    Frames keep their size: the model covers large ones with tiles.
    """

    def __call__(self, first: Pictures, second: Pictures) -> FramePairs:
        """Maps first and second frames to the model's input, a batch even of one pair.

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
        """Maps the model's output to a picture of each flow, in Middlebury's colours.

        Args:
            max_motion: pixels of motion with full colour; None takes the fastest of each.

        Raises:
            ValueError: not a batch of flow, or `max_motion` is not positive.
        """
        return [flow_to_image(one, max_motion) for one in _batch(flow)]

    def arrays(self, flow: Float[Tensor, "batch 2 height width"]) -> list[Float32[np.ndarray, "height width 2"]]:
        """Maps the model's output to arrays of (x, y) in pixels, one for each flow, as .flo files and OpenCV hold it.

        Raises:
            ValueError: not a batch of flow.
        """
        return [one.permute(1, 2, 0).contiguous().numpy() for one in _batch(flow).detach().float().cpu()]


def _batch(flow: Tensor) -> Tensor:
    if not isinstance(flow, Tensor) or flow.ndim != 4 or flow.shape[1] != 2:
        kind = f"a tensor of shape {tuple(flow.shape)}" if isinstance(flow, Tensor) else f"a {type(flow).__name__}"
        raise ValueError(f"{kind} is not the output of a flow model; it must be [batch, 2, height, width]")
    return flow
