"""Class names, and logits as the names and probabilities of the likeliest classes."""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.media.arrays import as_array


class ClassProbability(NamedTuple):
    """A class and how likely it is, 0…1."""

    name: str
    probability: float


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Names the 1,000 classes of ImageNet in the order of the released models' logits (ImageNet colab)."""
    return _names("imagenet_classes.txt")


@cache
def kinetics700_classes() -> tuple[str, ...]:
    """Names the 700 classes of Kinetics in the order of the released model's label (video colab)."""
    return _names("kinetics700_classes.txt")


def read_class_names(directory: str | Path) -> tuple[str, ...] | None:
    """Reads the class names of a saved model, in the order of its logits, or None where it has none.

    They are metadata of its `config.json`. Models that version 0.1.0 trained have them in `training.json`.

    Raises:
        ValueError: if the file that should hold them is damaged.
    """
    return _read_class_names(Path(directory, "config.json"), "metadata") or _read_class_names(
        Path(directory, "training.json")
    )


def _read_class_names(path: Path, *keys: str) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            notes = notes.get(key, {})
        names = notes.get("class_names")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not what this library writes ({error}); copy or remove it") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"class_names in {path} must be a list of strings")
    return None if names is None else tuple(names)


def name_classes(num_classes: int, given: Sequence[str] | None, released: Sequence[str]) -> tuple[str, ...]:
    """Names a model's classes: as given, or as the released model's if it has as many, or by their numbers.

    Raises:
        ValueError: names for another number of classes.
    """
    if given is not None:
        if len(given) != num_classes:
            raise ValueError(f"{len(given)} class names for {num_classes} classes; give one for each")
        return tuple(given)
    if len(released) == num_classes:
        return tuple(released)
    return tuple(f"class {index}" for index in range(num_classes))


def likeliest_classes(
    logits: Float[Tensor, "batch classes"], names: Sequence[str], top: int = 5
) -> list[list[ClassProbability]]:
    """Maps logits to the likeliest classes of each example, best first.

    Args:
        logits: of a batch; also [classes] of one example.
        names: one for each class.
        top: how many to name.

    Raises:
        ValueError: logits that are not numbers, not finite or of another number of classes, or `top` is below 1.
    """
    array, given = as_array(logits)
    if array.ndim not in (1, 2) or array.shape[-1] != len(names):
        raise ValueError(f"{given} is not logits; they must be [batch, classes], for {len(names)} classes")
    if top < 1:
        raise ValueError(f"top ({top}) must be at least 1 class")
    probabilities = torch.from_numpy(np.array(array, np.float32, ndmin=2)).softmax(-1)
    if not probabilities.isfinite().all():
        raise ValueError("the logits are not finite; the model's checkpoint is damaged, or its training failed")
    best = probabilities.topk(min(top, len(names)))
    return [
        [ClassProbability(names[index], share) for index, share in zip(indices, shares, strict=True)]
        for indices, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _names(filename: str) -> tuple[str, ...]:
    text = resources.files("perceiver_io.processors").joinpath(filename).read_text(encoding="utf-8")
    return tuple(text.splitlines())
