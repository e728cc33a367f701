"""The paper's task models: a config and a model per file."""

from perceiver_io.models.image_classification import ImageClassificationConfig, ImageClassificationPerceiver
from perceiver_io.models.language import LanguageConfig, LanguagePerceiver
from perceiver_io.models.optical_flow import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.models.perceiver_classifier import PerceiverClassifier, PerceiverClassifierConfig
from perceiver_io.models.text_classification import TextClassificationConfig, TextClassificationPerceiver
from perceiver_io.models.video_autoencoding import VideoAutoencodingConfig, VideoAutoencodingPerceiver

__all__ = [
    "ImageClassificationConfig",
    "ImageClassificationPerceiver",
    "LanguageConfig",
    "LanguagePerceiver",
    "OpticalFlowConfig",
    "OpticalFlowPerceiver",
    "PerceiverClassifier",
    "PerceiverClassifierConfig",
    "TextClassificationConfig",
    "TextClassificationPerceiver",
    "VideoAutoencodingConfig",
    "VideoAutoencodingPerceiver",
]
