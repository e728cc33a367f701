"""The six presets at sizes for tests, different on every axis, and inputs for them."""

from typing import Any

import torch
from torch import Tensor

from perceiver_io import (
    ImageClassificationPerceiver,
    LanguagePerceiver,
    OpticalFlowPerceiver,
    PerceiverClassifier,
    PerceiverIO,
    VideoAutoencodingPerceiver,
)

_ENCODER = {
    "num_latents": 7,
    "num_latent_channels": 24,
    "num_self_attends_per_block": 2,
    "num_self_attend_heads": 3,
}
_IMAGENET = {
    **_ENCODER,
    "num_blocks": 2,
    "num_classes": 11,
    "image_size": (19, 25),
    "num_bands": 5,
    "featurizer_channels": 9,
    "position_channels": 10,
}

SMALL: dict[str, dict[str, Any]] = {
    "language": {
        **_ENCODER,
        "vocab_size": 31,
        "max_seq_len": 17,
        "embed_channels": 20,
        "num_cross_attend_heads": 2,
        "num_decoder_heads": 4,
        "qk_channels": 12,
    },
    "imagenet-fourier": {**_IMAGENET, "max_resolution": (19, 25)},
    "imagenet-learned": _IMAGENET,
    "imagenet-conv": {**_IMAGENET, "max_resolution": (5, 7)},
    "optical-flow": {**_ENCODER, "image_size": (10, 14), "num_bands": 4, "featurizer_channels": 9},
    "video-autoencoding": {
        **_ENCODER,
        "num_frames": 3,
        "image_size": (8, 12),
        "patch_size": 4,
        "audio_samples_per_frame": 20,
        "audio_samples_per_patch": 5,
        "num_classes": 13,
        "num_image_bands": 3,
        "num_audio_bands": 6,
        "decoder_channels": 18,
        "label_query_channels": 29,
    },
}


def small_inputs(model: PerceiverIO, batch: int = 2) -> tuple[Tensor, ...]:
    """Random inputs of the size that a model is configured for."""
    match model:
        case LanguagePerceiver():
            length = model.config.max_seq_len - 3
            return torch.randint(model.config.vocab_size, (batch, length)), torch.rand(batch, length) > 0.2
        case ImageClassificationPerceiver():
            return (torch.randn(batch, 3, *model.config.image_size),)
        case PerceiverClassifier():
            return (torch.randn(batch, model.config.num_input_channels, *model.config.index_dims),)
        case OpticalFlowPerceiver():
            frame1, frame2 = torch.rand(2, batch, 3, *model.config.image_size) * 2 - 1
            return frame1, frame2
        case VideoAutoencodingPerceiver():
            config = model.config
            video = torch.rand(batch, config.num_frames, 3, *config.image_size)
            return video, torch.rand(batch, config.num_audio_samples, 1) * 2 - 1
    raise AssertionError(type(model))
