"""Training for optical flow: the end-point error as loss and as metric (paper, section 4.3)."""

import dataclasses
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.media.flow import UNKNOWN_FLOW
from perceiver_io.position_encoding import select_rows
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.points import draw_points
from perceiver_io.training.trainer import Batch, Dataset


def end_point_error(
    flow: Float[Tensor, "batch 2 *points"], target: Float[Tensor, "batch 2 *points"]
) -> Float[Tensor, ""]:
    """Maps flow and true flow in pixels to the mean distance of their end points in pixels.

    Pixels whose true flow is unknown (above 1e9 or not finite) are left out; if all are, the error is 0.
    """
    known = (target.abs() <= UNKNOWN_FLOW).all(1)
    difference = flow.float() - target.float()
    errors = torch.linalg.vector_norm(difference.where(known.unsqueeze(1), 0.0), dim=1)
    return errors.sum() / known.sum().clamp_min(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpticalFlowObjective:
    """Maps a model and a batch of pairs to the end-point error at points drawn for each example.

    The paper does not name its loss. Decoding some points of each pair instead of all of them is as good an estimate
    of it at less work.

    Args:
        num_points: pixels to decode of a pair; all of them if there are no more. None decodes all.
    """

    num_points: int | None = None

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "frame1", "frame2" [batch, 3, height, width] and "flow" [batch, 2, height, width]."""
        frame1, flow = batch["frame1"], batch["flow"]
        if self.num_points is None:
            return {"loss": end_point_error(model(frame1, batch["frame2"]), flow)}
        rows = flow.flatten(2).transpose(1, 2)
        points = draw_points(len(rows), rows.shape[1], self.num_points, generator).to(flow.device, non_blocking=True)
        predicted = model(frame1, batch["frame2"], points=points)
        return {"loss": end_point_error(predicted, select_rows(rows, points).transpose(1, 2))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpticalFlowEvaluation:
    """Maps a model to its end-point error on held-out pairs.

    Args:
        dataset: of pairs, each seen once.
        seed: of the draws: for pairs that are made up, another seed than training's.
        batch_size: pairs at a time; 1 where they differ in size.
        num_workers: processes that load them.
    """

    dataset: Dataset
    seed: int = 0
    batch_size: int = 1
    num_workers: int = 0

    @cached_property
    def _held_out(self) -> HeldOutBatches:
        return HeldOutBatches(self.dataset, self.seed, batch_size=self.batch_size, num_workers=self.num_workers)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns "end_point_error", that of predicting no motion ("zero_error"), both in pixels, and their ratio.

        Errors are means over pixels of means over pairs: each pair counts alike.
        """
        device = next(model.parameters()).device
        batches = self._held_out.on(device)
        errors, zero_errors = [], []
        for batch in batches:
            frame1, frame2, target = (batch[name] for name in ("frame1", "frame2", "flow"))
            for flow, true in zip(model(frame1, frame2), target, strict=True):
                errors.append(end_point_error(flow[None], true[None]))
                zero_errors.append(end_point_error(torch.zeros_like(true)[None], true[None]))
        error, zero_error = (float(torch.stack(values).mean()) for values in (errors, zero_errors))
        return {"end_point_error": error, "zero_error": zero_error, "relative_error": error / max(zero_error, 1e-9)}
