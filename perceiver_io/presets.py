"""Models by name: the released ones, and how a configuration becomes a model."""

from collections.abc import Callable
from typing import Any

from perceiver_io.fast import accelerate
from perceiver_io.models import (
    ImageClassificationConfig,
    ImageClassificationPerceiver,
    LanguageConfig,
    LanguagePerceiver,
    OpticalFlowConfig,
    OpticalFlowPerceiver,
    TextClassificationConfig,
    TextClassificationPerceiver,
    VideoAutoencodingConfig,
    VideoAutoencodingPerceiver,
)
from perceiver_io.models.config import ModelConfig
from perceiver_io.perceiver import PerceiverIO

# The released models. The first of the ImageNet ones is the configuration's default.
PRESETS: dict[str, ModelConfig] = {
    "language": LanguageConfig(),
    "imagenet-fourier": ImageClassificationConfig(),
    "imagenet-learned": ImageClassificationConfig(
        featurizer="conv1x1", position_encoding="learned", featurizer_channels=256, decoder_query_residual=False
    ),
    "imagenet-conv": ImageClassificationConfig(featurizer="conv", max_resolution=(56, 56)),
    "optical-flow": OpticalFlowConfig(),
    "video-autoencoding": VideoAutoencodingConfig(),
}

_MODELS: dict[type[ModelConfig], Callable[[Any], PerceiverIO]] = {
    LanguageConfig: LanguagePerceiver,
    ImageClassificationConfig: ImageClassificationPerceiver,
    OpticalFlowConfig: OpticalFlowPerceiver,
    TextClassificationConfig: TextClassificationPerceiver,
    VideoAutoencodingConfig: VideoAutoencodingPerceiver,
}
# By the name that is saved with a model.
CONFIG_CLASSES = {config.__name__: config for config in _MODELS}


def create_config(preset: str, **config_overrides: Any) -> ModelConfig:
    """Maps the name of a released model, and fields to change, to a configuration.

    Raises:
        ValueError: for an unknown preset or field, or a value that a field cannot have.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; presets are {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return type(config).from_dict({**vars(config), **config_overrides})


def create_model(preset: str, **config_overrides: Any) -> PerceiverIO:
    """Maps the name of a released model, and fields to change, to a model initialised as the reference does.

    The model is accelerated (see `fast`); `undo_accelerate` makes it plain.

    Raises:
        ValueError: for an unknown preset or field, or a value that a field cannot have.
    """
    return model_from_config(create_config(preset, **config_overrides))


def model_from_config(config: ModelConfig) -> PerceiverIO:
    """Maps a configuration to a new model of its kind, accelerated."""
    return accelerate(_MODELS[type(config)](config))
