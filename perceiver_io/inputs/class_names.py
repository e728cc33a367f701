"""The class names of the released classification models, by index."""

from functools import cache
from importlib import resources


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names in the order of the released models' logits (ImageNet colab)."""
    return _names("imagenet_classes.txt")


@cache
def kinetics700_classes() -> tuple[str, ...]:
    """The 700 Kinetics class names in the order of the released model's label (video colab)."""
    return _names("kinetics700_classes.txt")


def _names(filename: str) -> tuple[str, ...]:
    text = resources.files("perceiver_io.inputs").joinpath(filename).read_text(encoding="utf-8")
    return tuple(text.splitlines())
