"""Perceiver IO in PyTorch: a faithful port of DeepMind's Haiku implementation.

Paper: "Perceiver IO: A General Architecture for Structured Inputs & Outputs" (Jaegle et al., 2021).
"""

from perceiver_io.attention import MLP, Attention, CrossAttention, SelfAttention
from perceiver_io.attention_maps import record_attention
from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.decoder import PerceiverDecoder, ProjectionDecoder
from perceiver_io.encoder import PerceiverEncoder, Round, perceiver_io_rounds, perceiver_rounds
from perceiver_io.fast import accelerate, plain, undo_accelerate
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
from perceiver_io.multimodal import MultimodalPostprocessor, MultimodalPreprocessor, MultimodalQuery
from perceiver_io.perceiver import Encoding, PerceiverIO
from perceiver_io.presets import create_config, create_model
from perceiver_io.version import __version__
from perceiver_io.weights import from_pretrained, import_model, load_model, push_to_hub, save_model

__all__ = [
    "MLP",
    "Attention",
    "CrossAttention",
    "Encoding",
    "ImageClassificationConfig",
    "ImageClassificationPerceiver",
    "LanguageConfig",
    "LanguagePerceiver",
    "MultimodalPostprocessor",
    "MultimodalPreprocessor",
    "MultimodalQuery",
    "OpticalFlowConfig",
    "OpticalFlowPerceiver",
    "PerceiverAR",
    "PerceiverARConfig",
    "PerceiverClassifier",
    "PerceiverClassifierConfig",
    "PerceiverDecoder",
    "PerceiverEncoder",
    "PerceiverIO",
    "ProjectionDecoder",
    "Round",
    "SelfAttention",
    "TextClassificationConfig",
    "TextClassificationPerceiver",
    "VideoAutoencodingConfig",
    "VideoAutoencodingPerceiver",
    "__version__",
    "accelerate",
    "create_config",
    "create_model",
    "from_pretrained",
    "import_model",
    "load_model",
    "perceiver_io_rounds",
    "perceiver_rounds",
    "plain",
    "push_to_hub",
    "record_attention",
    "save_model",
    "undo_accelerate",
]
