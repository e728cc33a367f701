"""Class names, and logits as the names and probabilities of the likeliest classes."""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class ClassProbability(NamedTuple):
    """A class and how likely it is, 0…1."""

    name: str
    probability: float


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names in the order of the released models' logits (ImageNet colab)."""
    return _names("imagenet_classes.txt")


@cache
def kinetics700_classes() -> tuple[str, ...]:
    """The 700 Kinetics class names in the order of the released model's label (video colab)."""
    return _names("kinetics700_classes.txt")


def read_class_names(directory: str | Path) -> tuple[str, ...] | None:
    """The class names that came with a model, in the order of its logits, or None without any.

    A training script leaves them beside the model; conversion, in its metadata.

    Raises:
        ValueError: the file that should hold them is damaged.
    """
    path = Path(directory) / "training.json"
    if not path.is_file():
        return _converted_class_names(Path(directory) / "config.json")
    try:
        names = json.loads(path.read_text(encoding="utf-8")).get("class_names")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not what a training script writes ({error}); copy or remove it") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"class_names in {path} must be a list of strings")
    return None if names is None else tuple(names)


def _converted_class_names(config: Path) -> tuple[str, ...] | None:
    try:
        names = json.loads(json.loads(config.read_text(encoding="utf-8"))["metadata"]["class_names"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # converted without names, or not by us; load_model says what is wrong with it
    return tuple(map(str, names)) if isinstance(names, list) else None


def name_classes(num_classes: int, given: Sequence[str] | None, released: Sequence[str]) -> tuple[str, ...]:
    """The names of a model's classes: those given, or the released model's if it has as many, or their numbers.

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
    """Logits → for each example its likeliest classes, best first.

    Args:
        names: one for each class.
        top: how many to name.
    """
    best = logits.detach().float().softmax(-1).cpu().topk(min(top, logits.shape[-1]))
    return [
        [ClassProbability(names[index], share) for index, share in zip(indices, shares, strict=True)]
        for indices, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _names(filename: str) -> tuple[str, ...]:
    text = resources.files("perceiver_io.processors").joinpath(filename).read_text(encoding="utf-8")
    return tuple(text.splitlines())
