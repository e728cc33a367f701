"""Optical flow: the end-point error, and the share of pixels that are far off (paper, section 4.3)."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor, nn

from perceiver_io.evaluation.protocol import Example, Protocol, column
from perceiver_io.media import flow_to_image
from perceiver_io.media.flow import UNKNOWN_FLOW
from perceiver_io.outputs import check_finite
from perceiver_io.training.data.flow import FlowFolder, PairFiles
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch

# KITTI's: a pixel whose motion is off by more than 3 pixels and by more than 5 % of it is an outlier.
_FAR, _FAR_SHARE = 3.0, 0.05


class _Grouped:
    """A data set of pairs that says of each which group it is of."""

    def __init__(self, pairs: FlowFolder, groups: Sequence[int]) -> None:
        self.pairs = pairs
        self.groups = groups

    def fingerprint(self) -> str:
        return self.pairs.fingerprint()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> Batch:
        return {**self.pairs[draw], "group": torch.tensor(self.groups[draw.index])}


class FlowProtocol(Protocol):
    """Measures a model of flow with evenly spaced tiles, six in the paper, that are blended where they overlap.

    Pixels whose motion is not known are left out.

    Args:
        groups: pairs by the name of the group that gets figures of its own, such as Sintel's two passes; a single group
            has no name.
        image_size: (height, width) of a tile.
        tiles: how many from top to bottom, and from left to right.
        published: the paper's end-point errors, by group.
        description: of the data.
    """

    columns = ("group", "known pixels", "sum of errors", "outliers")

    def __init__(
        self,
        groups: Mapping[str, Sequence[PairFiles]],
        image_size: tuple[int, int],
        tiles: tuple[int, int],
        published: Mapping[str, float],
        description: str,
    ) -> None:
        self.groups = list(groups)
        self.files = [pair for pairs in groups.values() for pair in pairs]
        numbers = [number for number, pairs in enumerate(groups.values()) for _ in pairs]
        self.dataset = _Grouped(FlowFolder(self.files, min_size=image_size), numbers)
        self.image_size = image_size
        self.tiles = tiles
        self.description = description
        self.units = {
            f"{figure}{_suffix(group)}": unit
            for figure, unit in (("epe", "px"), ("epe_by_pair", "px"), ("fl_all", "%"))
            for group in groups
        }
        # The paper does not say which mean it takes.
        self.published = {
            f"{figure}{_suffix(group)}": {"optical-flow": error}
            for figure in ("epe", "epe_by_pair")
            for group, error in published.items()
        }

    def settings(self) -> dict[str, Any]:
        """Says how frames are tiled, and what is counted as an outlier."""
        return {
            "tiles": list(self.tiles),
            "tile": list(self.image_size),
            "groups": self.groups,
            "outlier": f"off by more than {_FAR:g} px and {_FAR_SHARE:.0%}",
        }

    def collate(self, samples: Sequence[Batch]) -> Batch:
        """Joins pairs to a batch.

        Raises:
            ValueError: if they differ in size.
        """
        sizes = {tuple(sample["flow"].shape[1:]) for sample in samples}
        if len(sizes) > 1:
            raise ValueError(
                f"pairs of {' and '.join(f'{h}×{w}' for h, w in sorted(sizes))} pixels cannot be measured at once; "
                "use --batch-size 1"
            )
        return super().collate(samples)

    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps "frame1", "frame2", "flow" and "group" to outcomes."""
        errors, known = self._errors(self._flow(model, batch), batch["flow"])
        speed = torch.linalg.vector_norm(batch["flow"].double(), dim=1)
        far = (errors > _FAR) & (errors > _FAR_SHARE * speed) & known
        sums = (part.flatten(1).double().sum(1) for part in (known, errors, far))
        return torch.stack([batch["group"].double(), *sums], dim=1)

    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Returns, for each group, the end-point error as a mean over pixels, as a mean over pairs, and Fl-all.

        The mean over pairs is that of means over a pair's known pixels; where all are known the two are the same.
        """
        figures = {}
        for number, group in enumerate(self.groups):
            own = outcomes[(column(self, outcomes, "group") == number) & (column(self, outcomes, "known pixels") > 0)]
            known, errors, outliers = (column(self, own, name) for name in self.columns[1:])
            figures[f"epe{_suffix(group)}"] = float(errors.sum() / known.sum())
            figures[f"epe_by_pair{_suffix(group)}"] = float((errors / known).mean())
            figures[f"fl_all{_suffix(group)}"] = 100 * float(outliers.sum() / known.sum())
        return figures

    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Returns the mean error of each pair."""
        return column(self, outcomes, "sum of errors") / column(self, outcomes, "known pixels").clamp_min(1)

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Shows the first frame, the motion found, the true one, and the error."""
        flow, true = self._flow(model, sample)[0], sample["flow"][0]
        errors, known = self._errors(flow[None], true[None])
        fastest = float(torch.linalg.vector_norm(true.where(known, 0.0), dim=0).max()) or 1.0
        mean = float(errors.sum() / known.sum().clamp_min(1))
        return Example(
            title=f"{self.files[index].frame1}, off by {mean:.2f} pixels",
            pictures=[
                ("The first frame", _picture(sample["frame1"][0])),
                ("The motion that the model finds", flow_to_image(flow, fastest)),
                ("The true motion, black where it is unknown", flow_to_image(true, fastest)),
                (f"The error: white is {float(errors.max()):.1f} pixels", _grey(errors[0])),
            ],
        )

    def _flow(self, model: nn.Module, batch: Batch) -> Float[Tensor, "batch 2 height width"]:
        return check_finite(model(batch["frame1"], batch["frame2"], tiles=self.tiles))

    @staticmethod
    def _errors(
        flow: Float[Tensor, "batch 2 height width"], true: Float[Tensor, "batch 2 height width"]
    ) -> tuple[Float64[Tensor, "batch height width"], Bool[Tensor, "batch height width"]]:
        """The distance of the end points at each pixel, 0 where the motion is unknown, and where it is known."""
        known = (true.abs() <= UNKNOWN_FLOW).all(1)
        difference = (flow.double() - true.double()).where(known[:, None], 0.0)
        return torch.linalg.vector_norm(difference, dim=1), known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the number of tiles."""
    parser.add_argument(
        "--tiles",
        type=int,
        nargs=2,
        default=(2, 3),
        metavar=("DOWN", "ACROSS"),
        help="evenly spaced tiles that cover a frame (default: 2 3, the paper's six)",
    )


def _suffix(group: str) -> str:
    return f"_{group}" if group else ""


def _picture(frame: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    values = ((frame.cpu().double() + 1) / 2 * 255).round().clamp(0, 255)
    return values.byte().permute(1, 2, 0).numpy()


def _grey(errors: Float64[Tensor, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    values = (255 * errors.cpu() / errors.max().cpu().clamp_min(1e-9)).byte()
    return values[..., None].expand(-1, -1, 3).contiguous().numpy()
