"""Starting from a trained model: a head for other classes, and an encoder that stays as it is."""

import dataclasses
from typing import Any

from torch import nn

from perceiver_io.initializers import haiku_linear
from perceiver_io.models import (
    ImageClassificationConfig,
    ImageClassificationPerceiver,
    LanguagePerceiver,
    PerceiverClassifier,
    PerceiverClassifierConfig,
    TextClassificationConfig,
    TextClassificationPerceiver,
)
from perceiver_io.models.config import ModelConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.presets import model_from_config


def replace_head(model: ImageClassificationPerceiver | PerceiverClassifier, num_classes: int) -> None:
    """Gives a classifier a new last layer, for other classes, initialised as the reference does.

    Args:
        model: changed in place, with its configuration.
        num_classes: of the new layer.

    Raises:
        ValueError: if there is not at least one class.
    """
    model.config = dataclasses.replace(model.config, num_classes=num_classes)
    head = model.decoder.output
    assert isinstance(head, nn.Linear)
    model.decoder.output = haiku_linear(head.in_features, num_classes).to(head.weight)


def adapted(model: Any, config: ModelConfig) -> Any:
    """Maps a trained model to one for other data, as far as that is known to be done: with a new head.

    Args:
        model: of pictures, changed in place; or of text, whose parts serve in a classifier.
        config: that the data need.
    """
    if isinstance(model, ImageClassificationPerceiver | PerceiverClassifier) and isinstance(
        config, ImageClassificationConfig | PerceiverClassifierConfig
    ):
        replace_head(model, config.num_classes)
    if isinstance(model, LanguagePerceiver | TextClassificationPerceiver) and isinstance(
        config, TextClassificationConfig
    ):
        return text_classifier(model, config)
    return model


def text_classifier(
    model: LanguagePerceiver | TextClassificationPerceiver, config: TextClassificationConfig
) -> TextClassificationPerceiver:
    """Maps a text model to a classifier with its embeddings and its encoder, and a new decoder and head.

    Of a classifier, all is kept but a last layer for another number of classes.

    Args:
        config: of the classifier; all that is kept has the same sizes there.
    """
    classifier: TextClassificationPerceiver = model_from_config(config)
    own = classifier.state_dict()
    kept = ("",) if isinstance(model, TextClassificationPerceiver) else ("input_preprocessor.", "encoder.")
    given = {name: value for name, value in model.state_dict().items() if name.startswith(kept)}
    fitting = {name: value for name, value in given.items() if name in own and value.shape == own[name].shape}
    classifier.load_state_dict(own | fitting)
    return classifier


def freeze_encoder(model: PerceiverIO) -> None:
    """Excludes all up to the latents, the inputs' preprocessing and the encoder, from training.

    The trainer keeps their batch norms, if there are any, in evaluation mode.
    """
    model.input_preprocessor.requires_grad_(False)
    model.encoder.requires_grad_(False)
