"""Kinetics: how well pictures and sound are rebuilt, and whether the label is found (paper, section 4.4)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.evaluation.protocol import Example, Protocol, column
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.media import FRAME_RATE, to_frames
from perceiver_io.models import VideoAutoencodingConfig, VideoAutoencodingPerceiver
from perceiver_io.outputs import check_finite
from perceiver_io.processors import VideoProcessor, likeliest_classes
from perceiver_io.training.data.class_folders import LabelledFile, labelled_files
from perceiver_io.training.data.clips import VIDEO_SUFFIXES, VideoFolder
from perceiver_io.training.data.kinetics import find_labelled_clips
from perceiver_io.training.trainer import Batch

# Frames of a clip on the page.
_SHOWN = 4


class KineticsProtocol(Protocol):
    """Measures a video model on the first frames of each clip and their sound, with the label masked.

    Outputs are clipped to their range. Peaks of both PSNRs are 1: of pixels 0…1, and of sound -1…1, whose figure would
    be 6.02 dB higher if its whole range of 2 were the peak; the paper does not say which one it is.

    Args:
        files: of the clips.
        config: of the model.
        class_names: one for each class.
        description: of the data.
    """

    columns = ("label", "choice", "image PSNR", "audio PSNR", "cross-entropy")

    def __init__(
        self,
        files: Sequence[LabelledFile],
        config: VideoAutoencodingConfig,
        class_names: Sequence[str],
        description: str,
    ) -> None:
        self.files = list(files)
        self.class_names = tuple(class_names)
        self.config = config
        self.dataset = VideoFolder(
            files,
            num_frames=config.num_frames,
            image_size=config.image_size,
            audio_samples_per_frame=config.audio_samples_per_frame,
            random_positions=False,
        )
        self.description = description
        self.units = {"image_psnr": "dB", "audio_psnr": "dB", "top1": "%"}
        paper = {"image_psnr": 24.37, "audio_psnr": 26.97, "top1": 10.2}
        self.published = {name: {"video-autoencoding": value} for name, value in paper.items()}

    def settings(self) -> dict[str, Any]:
        """Says what of a clip is taken."""
        config = self.config
        return {
            "frames": config.num_frames,
            "frames a second": FRAME_RATE,
            "first frame": 0,
            "image size": list(config.image_size),
            "samples a second": FRAME_RATE * config.audio_samples_per_frame,
            "label": "masked",
            "peaks": {"image": 1, "audio": 1},
        }

    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps "video", "audio" and "label" to outcomes."""
        outputs = {name: check_finite(output) for name, output in model(batch["video"], batch["audio"]).items()}
        logits, labels = outputs["label"].double(), batch["label"]
        numbers = (
            labels.double(),
            logits.argmax(1).double(),
            _psnr(outputs["image"].clamp(0, 1), batch["video"]),
            _psnr(outputs["audio"].clamp(-1, 1), batch["audio"]),
            F.cross_entropy(logits, labels, reduction="none"),
        )
        return torch.stack(numbers, dim=1)

    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Returns the PSNRs of pictures and sound, means over clips in dB, and the share of labels that are found."""
        from torchmetrics.functional.classification import multiclass_accuracy

        labels, choices = (column(self, outcomes, name).long() for name in ("label", "choice"))
        top1 = multiclass_accuracy(choices, labels, num_classes=self.config.num_classes, average="micro")
        return {
            "image_psnr": float(column(self, outcomes, "image PSNR").mean()),
            "audio_psnr": float(column(self, outcomes, "audio PSNR").mean()),
            "top1": 100 * float(top1),
        }

    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Returns how badly pictures are rebuilt."""
        return -column(self, outcomes, "image PSNR")

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Shows frames before and after, and the likeliest classes."""
        path, label = self.files[index]
        outputs = model(sample["video"], sample["audio"])
        image, audio = (float(column(self, self.measure(model, sample), name)) for name in self.columns[2:4])
        return Example(
            title=f"{self.class_names[label]} ({path}): pictures {image:.1f} dB, sound {audio:.1f} dB",
            pictures=[
                ("What went in", _strip(sample["video"][0])),
                ("What came out", _strip(outputs["image"][0].clamp(0, 1))),
            ],
            classes=likeliest_classes(outputs["label"], self.class_names)[0],
        )


def _psnr(outputs: Float[Tensor, "batch ..."], targets: Float[Tensor, "batch ..."]) -> Float64[Tensor, " batch"]:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    found, true = (part.double().flatten(1) for part in (outputs, targets))
    return peak_signal_noise_ratio(found, true, data_range=1.0, dim=1, reduction="none")


def _strip(video: Float[Tensor, "frames 3 height width"]) -> UInt8[np.ndarray, "height joined_width 3"]:
    """A few frames of a clip side by side."""
    places = torch.linspace(0, len(video) - 1, min(_SHOWN, len(video))).round().long()
    return np.concatenate(list(to_frames(video[places])), axis=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the labels are."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="the owners' csv file of the clips (default: the one in --data; without one, folders there are classes)",
    )


def prepare(
    arguments: argparse.Namespace, model: VideoAutoencodingPerceiver, names: Sequence[str] | None
) -> KineticsProtocol:
    """Maps `--data` to the protocol for a model."""
    class_names = VideoProcessor.for_model(model, names).class_names
    labels, directory = arguments.labels, arguments.data
    if labels is None:
        tables = sorted(directory.glob("*.csv"))
        if len(tables) > 1:
            raise ValueError(f"{directory} has {len(tables)} csv files; say with --labels which one has the labels")
        labels = next(iter(tables), None)
    if labels is None:
        files = labelled_files(directory, class_names, VIDEO_SUFFIXES)
        return KineticsProtocol(files, model.config, class_names, f"{len(files):,} clips of {directory}")
    found = find_labelled_clips(directory, labels, class_names)
    description = f"{len(found.files):,} clips of {directory}"
    if found.missing:
        description += f"; {len(found.missing):,} others of {labels} are not there"
    return KineticsProtocol(found.files, model.config, class_names, description)


TASK = EvaluationTask(
    name="kinetics",
    description="Rebuilds Kinetics' clips with their sound: PSNR of both, and top-1 accuracy of the label.",
    checkpoint="video-autoencoding",
    models=(VideoAutoencodingPerceiver,),
    data="a folder of clips, at any depth, named ID_000010_000020.mp4, with the owners' csv file of labels",
    prepare=prepare,
    batch_size=4,
    add_arguments=add_arguments,
)
