"""One object per task: from files, arrays or tensors to model input, and from model output to what a person reads."""

from perceiver_io.processors.class_names import (
    ClassProbability,
    imagenet_classes,
    kinetics700_classes,
    likeliest_classes,
    read_class_names,
)
from perceiver_io.processors.image_classification import ImageProcessor
from perceiver_io.processors.language import FilledText, MaskedByte, TextBatch, TextProcessor
from perceiver_io.processors.music import MusicTokenizer
from perceiver_io.processors.optical_flow import FlowProcessor, FramePairs
from perceiver_io.processors.preparation import centre_crop, prepare_audio, prepare_frame, prepare_image, prepare_video
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.processors.tokenizer import BytesTokenizer
from perceiver_io.processors.video_autoencoding import Clips, RebuiltClip, VideoProcessor

__all__ = [
    "ByteSequences",
    "BytesTokenizer",
    "ClassProbability",
    "Clips",
    "FilledText",
    "FlowProcessor",
    "FramePairs",
    "ImageProcessor",
    "MaskedByte",
    "MusicTokenizer",
    "RebuiltClip",
    "TextBatch",
    "TextProcessor",
    "VideoProcessor",
    "centre_crop",
    "imagenet_classes",
    "kinetics700_classes",
    "likeliest_classes",
    "prepare_audio",
    "prepare_frame",
    "prepare_image",
    "prepare_video",
    "read_class_names",
]
