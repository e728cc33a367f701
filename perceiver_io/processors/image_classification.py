"""Image classification: from pictures to model input, from logits to class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from perceiver_io.checks import check_task
from perceiver_io.models import (
    ImageClassificationConfig,
    ImageClassificationPerceiver,
    PerceiverClassifier,
    PerceiverClassifierConfig,
)
from perceiver_io.processors.class_names import ClassProbability, imagenet_classes, likeliest_classes, name_classes
from perceiver_io.processors.pictures import Pictures, to_pixels
from perceiver_io.processors.preparation import prepare_image


class ImageProcessor:
    """Maps pictures to what a classifier of pictures reads, and its logits to names (ImageNet colab).

        processor = ImageProcessor.for_model(model)
        predictions = processor.classes(model(processor("dog.jpg")))

    Args:
        image_size: (height, width) of the model's input.
        class_names: one for each class.
    """

    def __init__(self, image_size: tuple[int, int], class_names: Sequence[str]) -> None:
        self.image_size = image_size
        self.class_names = tuple(class_names)

    @classmethod
    def for_model(
        cls, model: ImageClassificationPerceiver | PerceiverClassifier, class_names: Sequence[str] | None = None
    ) -> ImageProcessor:
        """Makes the processor for a model's size and classes.

        Args:
            class_names: None for ImageNet's, where the model has as many classes; else they are numbered.

        Raises:
            ValueError: a model of another task or of other inputs, or names for another number of classes.
        """
        if not isinstance(model, PerceiverClassifier) or not isinstance(model.config, PerceiverClassifierConfig):
            check_task("ImageProcessor", model, ImageClassificationConfig)
        config = model.config
        return cls(config.image_size, name_classes(config.num_classes, class_names, imagenet_classes()))

    def __call__(self, pictures: Pictures) -> Float32[Tensor, "batch 3 height width"]:
        """Maps pictures of any size to the model's input: cropped, resized and normalised, a batch even of one.

        Args:
            pictures: one or several (see `to_pixels`).

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a picture, or one too small to crop.
        """
        return torch.stack([prepare_image(pixels, self.image_size) for pixels in to_pixels(pictures)])

    def classes(self, logits: Float[Tensor, "batch classes"], top: int = 5) -> list[list[ClassProbability]]:
        """Maps the model's output to the likeliest classes of each picture, best first.

        Raises:
            ValueError: the output is not finite, or of another number of classes.
        """
        return likeliest_classes(logits, self.class_names, top)
