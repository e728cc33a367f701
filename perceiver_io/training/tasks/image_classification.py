"""Training of models that name what is in a picture."""

import argparse
import dataclasses
from pathlib import Path
from typing import get_args

from perceiver_io.media.picture_files import Decoding, JpegDecoder, decoder_at_hand
from perceiver_io.models import ImageClassificationConfig, PerceiverClassifierConfig
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.data.labelled_pictures import find_labelled_pictures
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.data.training_pictures import TrainingPictures
from perceiver_io.training.device_augmentation import AugmentedOnDevice
from perceiver_io.training.image_classification import ClassificationEvaluation, ClassificationObjective, Pairs
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.tasks.task import Material, Task, check_apart

# For thousands of pictures; the paper's, for the million of ImageNet, is `perceiver_io.training.FINE_TUNING_RECIPE`.
FINE_TUNING_RECIPE = Recipe(
    num_steps=2000, batch_size=64, learning_rate=3e-4, weight_decay=0.1, optimizer="adamw", lead_steps=100
)


def prepare(arguments: argparse.Namespace, config: ImageClassificationConfig | PerceiverClassifierConfig) -> Material:
    """Maps `--data` to pictures with the paper's augmentation, and those held out."""
    check_apart(arguments)
    height, width = config.image_size
    classes, training_files, held_out_files = find_labelled_pictures(arguments.data, labels=arguments.labels)
    decoding = Decoding(scaled=arguments.scaled_decoding, decoder=decoder_at_hand(arguments.jpeg_decoder))
    augmentation = TrainingAugmentation(size=(height, width))
    on_device = arguments.augment_on_device
    pictures = SkipUnusable(TrainingPictures(training_files, augmentation, decoding, finished=not on_device))
    pairs = Pairs(pictures)
    held_out = SkipUnusable(ImageFolder(held_out_files, EvaluationCrop(size=(height, width))))
    return Material(
        config=dataclasses.replace(config, num_classes=len(classes)),
        dataset=AugmentedOnDevice(pairs, augmentation) if on_device else pairs,
        objective=ClassificationObjective(),
        evaluate=ClassificationEvaluation(dataset=held_out, num_workers=arguments.workers),
        description=f"{len(pictures)} pictures of {arguments.data}; {len(held_out)} others are held out",
        class_names=classes,
        skipping=(pictures, held_out),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where labels are, and how pictures to train on are made; those that are held out always are as a whole."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the classes of the pictures of ILSVRC2012_img_val.tar, as for perceiver-io evaluate imagenet",
    )
    group.add_argument(
        "--jpeg-decoder",
        choices=get_args(JpegDecoder),
        default="pillow",
        help="simplejpeg is faster and gives the same pixels; it comes with the extra fast-jpeg (default: %(default)s)",
    )
    group.add_argument(
        "--scaled-decoding",
        action="store_true",
        help="decode large JPEGs at 1/2, 1/4 or 1/8 where the crop stays as large as the model's input: faster, and "
        "slightly other pixels than the paper's",
    )
    group.add_argument(
        "--augment-on-device",
        action="store_true",
        help="flip, change and resize pictures where the model is trained, so that --workers only decode and crop",
    )


TASK = Task(
    name="image_classification",
    description="Trains a model that names what is in a picture.",
    presets=["imagenet-fourier", "imagenet-learned", "imagenet-conv", "perceiver-imagenet"],
    config_class=ImageClassificationConfig,
    other_config_classes=(PerceiverClassifierConfig,),
    fine_tuning_recipe=FINE_TUNING_RECIPE,
    data="pictures named train/CLASS/PICTURE and val/CLASS/PICTURE, or CLASS/PICTURE, of which every tenth is then "
    "held out; tar archives: WebDataset's shards, the owners' ILSVRC2012_img_train.tar; or a data set of Hugging Face "
    "with the columns image and label",
    prepare=prepare,
    add_arguments=add_arguments,
)
