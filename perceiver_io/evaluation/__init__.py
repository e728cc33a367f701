"""Evaluation as the paper does it: a protocol for each of its tables, on data as their owners ship them."""

from perceiver_io.evaluation.protocol import Example, Protocol
from perceiver_io.evaluation.results import identity_of, results_of, worst
from perceiver_io.evaluation.running import Measured, measured
from perceiver_io.evaluation.task import EvaluationTask

__all__ = ["EvaluationTask", "Example", "Measured", "Protocol", "identity_of", "measured", "results_of", "worst"]
