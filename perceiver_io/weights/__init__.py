"""Weights: saved models and where they lie, other libraries' models and their conversion, downloads."""

from perceiver_io.weights.importing import import_model
from perceiver_io.weights.locations import bundled_model, bundled_models, cache_directory, find_model, sample
from perceiver_io.weights.publishing import from_pretrained, model_card, push_to_hub
from perceiver_io.weights.saving import load_model, save_checkpoint, save_model

__all__ = [
    "bundled_model",
    "bundled_models",
    "cache_directory",
    "find_model",
    "from_pretrained",
    "import_model",
    "load_model",
    "model_card",
    "push_to_hub",
    "sample",
    "save_checkpoint",
    "save_model",
]
