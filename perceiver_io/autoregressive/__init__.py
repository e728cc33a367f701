"""Perceiver AR: a model of sequences of very many tokens, which it reads and continues."""

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.evaluation import Evaluation, evaluate
from perceiver_io.autoregressive.generation import Generation
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.autoregressive.sampling import CodeBooks

__all__ = ["CodeBooks", "Evaluation", "Generation", "PerceiverAR", "PerceiverARConfig", "evaluate"]
