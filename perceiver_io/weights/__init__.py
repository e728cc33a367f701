"""Weights: saved models and where they lie, released checkpoints and their conversion, downloads."""

from perceiver_io.weights.locations import bundled_model, bundled_models, cache_directory, find_model, sample
from perceiver_io.weights.saving import load_model, save_checkpoint, save_model

__all__ = [
    "bundled_model",
    "bundled_models",
    "cache_directory",
    "find_model",
    "load_model",
    "sample",
    "save_checkpoint",
    "save_model",
]
