"""ImageNet: the share of pictures whose class is the likeliest, and among the five likeliest (paper, section 4.2)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from perceiver_io.evaluation.protocol import Example, Protocol, column
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.models import ImageClassificationPerceiver, PerceiverClassifier
from perceiver_io.outputs import check_finite
from perceiver_io.processors import ImageProcessor, likeliest_classes
from perceiver_io.processors.preparation import MEAN_RGB, STDDEV_RGB
from perceiver_io.training.augmentation import EvaluationCrop
from perceiver_io.training.data.imagenet import Labelled, find_validation_pictures
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.trainer import Batch

_TOP = 5


class ImageNetProtocol(Protocol):
    """Measures a classifier on the centre crop of each picture, as the reference's colab does.

    Args:
        files: see `find_validation_pictures`.
        image_size: (height, width) of the model's input.
        class_names: one for each class.
        description: of the data.
    """

    columns = ("label", "cross-entropy", *(f"choice {place}" for place in range(1, _TOP + 1)))

    def __init__(
        self, files: Labelled, image_size: tuple[int, int], class_names: Sequence[str], description: str
    ) -> None:
        self.units = {"top1": "%", "top5": "%"}
        self.published = {
            "top1": {
                "imagenet-fourier": 79.0,
                "imagenet-learned": 72.7,
                "imagenet-conv": 82.1,
                "perceiver-imagenet": 78.0,  # 2103.03206
            }
        }
        self.files = files
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.description = description
        self.dataset = ImageFolder(files, EvaluationCrop(size=image_size))

    def settings(self) -> dict[str, Any]:
        """Says how pictures are prepared."""
        return {"crop": "centre, 7/8 of the shorter side", "resizing": "bicubic", "image size": list(self.image_size)}

    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps "image" and "label" to outcomes; choices that there are no classes for are -1."""
        logits, labels = check_finite(model(batch["image"])).double(), batch["label"]
        choices = logits.new_full((len(labels), _TOP), -1)
        best = logits.topk(min(_TOP, logits.shape[1])).indices
        choices[:, : best.shape[1]] = best
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return torch.cat([labels[:, None], losses[:, None], choices], dim=1)

    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Returns "top1" and "top5", in percent."""
        from torchmetrics.functional.classification import multiclass_accuracy

        labels, choices = column(self, outcomes, "label").long(), outcomes[:, -_TOP:].long()
        top1 = multiclass_accuracy(choices[:, 0], labels, num_classes=len(self.class_names), average="micro")
        top5 = (choices == labels[:, None]).any(1).double().mean()
        return {"top1": 100 * float(top1), "top5": 100 * float(top5)}

    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Returns the cross-entropy: large where the model was sure of another class."""
        return column(self, outcomes, "cross-entropy")

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Shows a picture as the model sees it, and the likeliest classes."""
        source, label = self.files[index]
        return Example(
            title=f"{self.class_names[label]} ({source})",
            pictures=[("The centre crop, as the model sees it", _pixels(sample["image"][0]))],
            classes=likeliest_classes(model(sample["image"]), self.class_names)[0],
        )


def _pixels(image: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    values = image.cpu().permute(1, 2, 0).double().numpy() * (255 * np.array(STDDEV_RGB)) + 255 * np.array(MEAN_RGB)
    return np.asarray(values.round().clip(0, 255).astype(np.uint8))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the labels of the owners' tar are."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the classes of the pictures of the validation tar: ILSVRC2012_validation_ground_truth.txt with meta.mat "
        "beside it, LOC_val_solution.csv, or a text file with lines PICTURE CLASS",
    )


def prepare(
    arguments: argparse.Namespace,
    model: ImageClassificationPerceiver | PerceiverClassifier,
    names: Sequence[str] | None,
) -> ImageNetProtocol:
    """Maps `--data` to the protocol for a model."""
    config = model.config
    files = find_validation_pictures(arguments.data, config.num_classes, labels=arguments.labels, names=names)
    processor = ImageProcessor.for_model(model, names)
    return ImageNetProtocol(
        files, config.image_size, processor.class_names, f"{len(files):,} pictures of {arguments.data}"
    )


TASK = EvaluationTask(
    name="imagenet",
    description="Names ImageNet's validation pictures: top-1 and top-5 accuracy.",
    checkpoint="imagenet-conv",
    models=(ImageClassificationPerceiver, PerceiverClassifier),
    data="folders of classes, the owners' ILSVRC2012_img_val.tar (with --labels), or a folder of WebDataset's shards",
    prepare=prepare,
    batch_size=64,
    add_arguments=add_arguments,
)
