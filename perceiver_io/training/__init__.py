"""Training: the optimiser, schedules, data order and loop that the paper's recipes need."""

from perceiver_io.training.distributed import Strategy, World, process_group, world
from perceiver_io.training.lamb import Lamb, decay_groups
from perceiver_io.training.metrics_log import METRICS_FILE, read_metrics
from perceiver_io.training.recipes import FINE_TUNING_RECIPE, PAPER_RECIPES, PERCEIVER_RECIPE, Recipe, SteppedRecipe
from perceiver_io.training.sampling import Draw, DrawSampler, derived_seed
from perceiver_io.training.schedules import Schedule, flat_then_cosine, stepwise, warmup_then_cosine
from perceiver_io.training.trainer import (
    STATE_FILE,
    Batch,
    Dataset,
    Evaluation,
    Objective,
    Precision,
    Trainer,
    TrainerConfig,
)

__all__ = [
    "FINE_TUNING_RECIPE",
    "METRICS_FILE",
    "PAPER_RECIPES",
    "PERCEIVER_RECIPE",
    "STATE_FILE",
    "Batch",
    "Dataset",
    "Draw",
    "DrawSampler",
    "Evaluation",
    "Lamb",
    "Objective",
    "Precision",
    "Recipe",
    "Schedule",
    "SteppedRecipe",
    "Strategy",
    "Trainer",
    "TrainerConfig",
    "World",
    "decay_groups",
    "derived_seed",
    "flat_then_cosine",
    "process_group",
    "read_metrics",
    "stepwise",
    "warmup_then_cosine",
    "world",
]
