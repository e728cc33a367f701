"""The small image classifier, which learns from scikit-learn's digits."""

import argparse
import dataclasses

from perceiver_io import ImageClassificationConfig
from perceiver_io.training import Recipe
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.image_classification import ClassificationEvaluation, ClassificationObjective
from perceiver_io.training.rand_augment import RandAugment
from perceiver_io.training.tasks import Material, TinyRun, image_classification

from .digits import Digits

CONFIG = ImageClassificationConfig(
    num_classes=10,
    image_size=(32, 32),
    num_bands=8,
    max_resolution=(32, 32),
    num_latents=32,
    num_latent_channels=64,
    num_self_attends_per_block=3,
    num_blocks=2,
    num_self_attend_heads=4,
)
RECIPE = Recipe(num_steps=3000, batch_size=64, learning_rate=2e-3, weight_decay=0.1, optimizer="adamw", lead_steps=100)

# Digits are not the same mirrored, inverted or without their lower half, and are black around.
DIGITS_AREA = (0.6, 1.0)
DIGITS_RAND_AUGMENT = RandAugment(num_layers=1, operations=("rotate", "shear_x", "shear_y"), fill=0)


def prepare(arguments: argparse.Namespace, config: ImageClassificationConfig) -> Material:
    """Maps `--data`, or the digits, to what the small model learns from."""
    if arguments.data is not None:
        return image_classification.prepare(arguments, config)
    size = config.image_size
    augmentation = TrainingAugmentation(size=size, area=DIGITS_AREA, flip=False, rand_augment=DIGITS_RAND_AUGMENT)
    digits, held_out = Digits(augmentation), Digits(EvaluationCrop(size=size), held_out=True)
    return Material(
        config=dataclasses.replace(config, num_classes=len(Digits.CLASSES)),
        dataset=digits,
        objective=ClassificationObjective(),
        evaluate=ClassificationEvaluation(dataset=held_out),
        description=f"scikit-learn's digits, {len(digits)} of them; {len(held_out)} others are held out",
        class_names=Digits.CLASSES,
    )


TASK = dataclasses.replace(
    image_classification.TASK,
    tiny=TinyRun(config=CONFIG, recipe=RECIPE, prepare=prepare, data="scikit-learn's digits"),
)
