"""Models by name: the released ones, and how a configuration becomes a model."""

from collections.abc import Callable
from typing import Any, Literal, overload

from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.fast import accelerate
from perceiver_io.models import (
    ImageClassificationConfig,
    ImageClassificationPerceiver,
    LanguageConfig,
    LanguagePerceiver,
    OpticalFlowConfig,
    OpticalFlowPerceiver,
    PerceiverClassifier,
    PerceiverClassifierConfig,
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

# Models of papers that came without weights. The original Perceiver's (2103.03206, section 4): ImageNet as stated;
# ModelNet40 with its 2 cross-attentions and a highest frequency of 1120; AudioSet's 480 pieces of 128 samples and
# 12,544 patches of 2×8×8 pixels. As far as the paper does not state a size, it is ImageNet's.
UNRELEASED_PRESETS: dict[str, ModelConfig] = {
    "perceiver-imagenet": PerceiverClassifierConfig(),
    "perceiver-modelnet40": PerceiverClassifierConfig(
        inputs="points",
        index_dims=(2000,),
        patch_size=(1,),
        max_resolution=(2240, 2240, 2240),
        num_classes=40,
        num_blocks=2,
        num_cross_attends=2,
    ),
    "perceiver-audioset-sound": PerceiverClassifierConfig(
        index_dims=(61_440,), patch_size=(128,), num_input_channels=1, max_resolution=(480,), num_classes=527
    ),
    "perceiver-audioset-film": PerceiverClassifierConfig(
        index_dims=(32, 224, 224), patch_size=(2, 8, 8), max_resolution=(16, 28, 28), num_classes=527
    ),
}

# Perceiver AR (2202.07765): the released model of the copy task, and two configurations of the reference's code.
AUTOREGRESSIVE_PRESETS: dict[str, ModelConfig] = {
    "ar-copy-131k": PerceiverARConfig(
        max_context_length=131_072,
        num_self_attends=6,
        position_tables="sinusoidal",
        position_sizes=(131_073,),
        rotary="none",
    ),
    "ar-imagenet64": PerceiverARConfig(
        max_context_length=12_416,
        num_self_attends=60,
        position_tables="learned",
        position_sizes=(66, 66, 5),
        train_positions=True,
        rotary="none",
    ),
    "ar-default": PerceiverARConfig(),
}

_MODELS: dict[type[ModelConfig], Callable[[Any], PerceiverIO | PerceiverAR]] = {
    LanguageConfig: LanguagePerceiver,
    ImageClassificationConfig: ImageClassificationPerceiver,
    OpticalFlowConfig: OpticalFlowPerceiver,
    PerceiverARConfig: PerceiverAR,
    PerceiverClassifierConfig: PerceiverClassifier,
    TextClassificationConfig: TextClassificationPerceiver,
    VideoAutoencodingConfig: VideoAutoencodingPerceiver,
}
# By the name that is saved with a model.
CONFIG_CLASSES = {config.__name__: config for config in _MODELS}


def create_config(preset: str, **config_overrides: Any) -> ModelConfig:
    """Maps the name of a preset, and fields to change, to a configuration.

    Raises:
        ValueError: for an unknown preset or field, or a value that a field cannot have.
    """
    presets = PRESETS | AUTOREGRESSIVE_PRESETS | UNRELEASED_PRESETS
    if preset not in presets:
        raise ValueError(f"there is no preset {preset!r}; presets are {', '.join(presets)}")
    config = presets[preset]
    return type(config).from_dict({**vars(config), **config_overrides})


@overload
def create_model(
    preset: Literal["ar-copy-131k", "ar-imagenet64", "ar-default"], **config_overrides: Any
) -> PerceiverAR: ...


@overload
def create_model(preset: str, **config_overrides: Any) -> PerceiverIO: ...


def create_model(preset: str, **config_overrides: Any) -> PerceiverIO | PerceiverAR:
    """Maps the name of a preset, and fields to change, to a model initialised as the reference does.

    The model is accelerated (see `fast`); `undo_accelerate` makes it plain.

    Raises:
        ValueError: for an unknown preset or field, or a value that a field cannot have.
    """
    return model_from_config(create_config(preset, **config_overrides))


def model_from_config(config: ModelConfig) -> Any:
    """Maps a configuration to a new model of its kind, accelerated."""
    return accelerate(_MODELS[type(config)](config))
