"""Perceiver AR: a model of sequences of very many tokens, which it reads and continues."""

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.model import PerceiverAR

__all__ = ["PerceiverAR", "PerceiverARConfig"]
