"""Recipes: the hyperparameters of a run, and those that the paper gives for each released model."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from perceiver_io.training.clipped_adam import ClippedAdam, clip_before_steps, cut_before_steps
from perceiver_io.training.lamb import Lamb, decay_groups
from perceiver_io.training.muon import Muon, muon_groups
from perceiver_io.training.schedules import (
    Schedule,
    flat_then_cosine,
    stepwise,
    warmup_then_cosine,
    warmup_then_flat,
)

OptimizerName = Literal["lamb", "adamw", "muon", "adam"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is decided about a run besides the model and the data.

    Args:
        num_steps: updates of the weights.
        batch_size: examples of an update, over all processes and micro-batches.
        learning_rate: the highest.
        weight_decay: of all parameters but biases and norms.
        optimizer: see `Lamb`; "adamw" is PyTorch's, with its defaults; see `Muon`; "adam" is `ClippedAdam`, which has
            no decay of weights.
        lead: what comes before the cosine: a constant rate, or a rise from 0.
        lead_steps: how long.
        max_gradient_norm: to which the gradients of an update are scaled down, all together. None is the optimiser's
            own: 10 for LAMB, 1 for "adam", any for the others; infinity is any for all.
        max_gradient_value: to which each element of the gradients is cut in place of that; None cuts none.

    Raises:
        ValueError: for a value that breaks these rules, naming the field.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: OptimizerName = "lamb"
    lead: Literal["flat", "warmup"] = "warmup"
    lead_steps: int = 0
    max_gradient_norm: float | None = None
    max_gradient_value: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate ({self.learning_rate}) must be positive")
        for name in ("max_gradient_norm", "max_gradient_value"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} ({value}) must be positive; None leaves it out")
        if self.max_gradient_norm is not None and self.max_gradient_value is not None:
            raise ValueError(
                f"max_gradient_norm ({self.max_gradient_norm}) and max_gradient_value ({self.max_gradient_value}) both "
                "bound the gradients; give one"
            )
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"weight_decay ({self.weight_decay}) must be 0 with optimizer 'adam'; 'adamw' decays weights"
            )
        for name, choices in (("optimizer", get_args(OptimizerName)), ("lead", ("flat", "warmup"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be one of {', '.join(choices)}")
        self.schedule()

    def with_steps(self, num_steps: int) -> "Recipe":
        """The recipe at another length; what comes before the cosine keeps its share."""
        return replace(self, num_steps=num_steps, lead_steps=round(self.lead_steps * num_steps / self.num_steps))

    def with_epochs(self, num_epochs: int | float, num_examples: int) -> "Recipe":
        """The recipe for so many passes over the data; what comes before the cosine keeps its length, if there is room.

        Raises:
            ValueError: for no or less than no passes.
        """
        if not num_epochs > 0:
            raise ValueError(f"the number of epochs ({num_epochs}) must be above 0")
        num_steps = math.ceil(num_epochs * num_examples / self.batch_size)
        return replace(self, num_steps=num_steps, lead_steps=min(self.lead_steps, num_steps))

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """Maps a model to its optimiser at the highest rate."""
        optimizer = self._bare_optimizer(model)
        if self.max_gradient_value is not None:
            cut_before_steps(optimizer, self.max_gradient_value)
        return optimizer

    def _bare_optimizer(self, model: nn.Module) -> Optimizer:
        rate, norm = self.learning_rate, self.max_gradient_norm
        if norm is None and self.max_gradient_value is not None:
            norm = math.inf
        is_cuda = next(model.parameters()).is_cuda
        if self.optimizer == "adam":
            max_norm = 1.0 if norm is None else norm
            return ClippedAdam(model.parameters(), lr=rate, max_norm=max_norm, fused=is_cuda or None)
        groups = decay_groups(model, self.weight_decay)
        if self.optimizer == "lamb":
            return Lamb(groups, lr=rate, max_grad_norm=10.0 if norm is None else norm)
        if self.optimizer == "muon":
            optimizer: Optimizer = Muon(muon_groups(model, self.weight_decay), lr=rate)
        else:
            optimizer = torch.optim.AdamW(groups, lr=rate, fused=is_cuda)
        if norm is not None:
            clip_before_steps(optimizer, norm)
        return optimizer

    def schedule(self) -> Schedule:
        """Maps a step to the factor of the highest rate."""
        make = flat_then_cosine if self.lead == "flat" else warmup_then_cosine
        return make(self.num_steps, self.lead_steps)


@dataclass(frozen=True, kw_only=True)
class SteppedRecipe(Recipe):
    """A recipe whose rate falls in steps, in place of the cosine.

    Args:
        drops_at: updates from which on the rate is a tenth of what it was.
    """

    drops_at: tuple[int, ...]

    def with_steps(self, num_steps: int) -> "SteppedRecipe":
        """The recipe at another length; the drops come at the same shares of it."""
        drops_at = tuple(max(1, round(drop * num_steps / self.num_steps)) for drop in self.drops_at)
        return replace(self, num_steps=num_steps, drops_at=drops_at)

    def schedule(self) -> Schedule:
        """Maps a step to the factor of the highest rate."""
        return stepwise(self.num_steps, self.drops_at)


@dataclass(frozen=True, kw_only=True)
class FlatThenCosineRecipe(Recipe):
    """A recipe whose rate rises, stays, and falls at the end.

    Args:
        flat_until: step at which half a cosine to the end of the run begins; `num_steps` for none.
    """

    flat_until: int

    def with_steps(self, num_steps: int) -> "FlatThenCosineRecipe":
        """The recipe at another length; its parts keep their shares."""
        share = num_steps / self.num_steps
        lead_steps, flat_until = round(self.lead_steps * share), round(self.flat_until * share)
        return replace(self, num_steps=num_steps, lead_steps=lead_steps, flat_until=flat_until)

    def schedule(self) -> Schedule:
        """Maps a step to the factor of the highest rate."""
        rise, fall = warmup_then_flat(self.lead_steps), flat_then_cosine(self.num_steps, self.flat_until)
        return lambda step: rise(step) * fall(step)


# The reference's script: 110 epochs of 1,281,167 pictures.
_IMAGENET = Recipe(
    num_steps=137_625, batch_size=1024, learning_rate=2e-3, weight_decay=0.1, lead="flat", lead_steps=68_812
)

PAPER_RECIPES: dict[str, Recipe] = {
    "language": Recipe(
        num_steps=500_000, batch_size=2048, learning_rate=1.25e-3, weight_decay=0.01, lead="warmup", lead_steps=1000
    ),
    "imagenet-fourier": _IMAGENET,
    "imagenet-learned": _IMAGENET,
    "imagenet-conv": _IMAGENET,
    # 480 epochs of 400,000 pairs. The paper leaves the weight decay open; this is ImageNet's.
    "optical-flow": Recipe(num_steps=375_000, batch_size=512, learning_rate=4e-4, weight_decay=0.1),
    # The paper leaves optimiser, length, schedule and weight decay open; these are ImageNet's.
    "video-autoencoding": replace(_IMAGENET, learning_rate=1e-3),
}

# Perceiver AR's, by preset. What the reference leaves open of "ar-default", the batch size, is ImageNet's.
AUTOREGRESSIVE_RECIPES: dict[str, Recipe] = {
    "ar-copy-131k": FlatThenCosineRecipe(
        num_steps=25_000,
        batch_size=4096,
        learning_rate=3e-4,
        weight_decay=0.0,
        optimizer="adam",
        lead_steps=1000,
        flat_until=1000,
    ),
    "ar-imagenet64": FlatThenCosineRecipe(
        num_steps=750_000,
        batch_size=2048,
        learning_rate=3e-4,
        weight_decay=0.0,
        optimizer="adam",
        lead_steps=10_000,
        flat_until=700_000,
    ),
    "ar-default": FlatThenCosineRecipe(
        num_steps=1_000_000,
        batch_size=2048,
        learning_rate=3e-4,
        weight_decay=0.0,
        optimizer="adam",
        lead_steps=10_000,
        flat_until=1_000_000,
    ),
}

# Language models on a task of GLUE: the paper takes the best of these on the development set. Its steps follow from the
# epochs (`Recipe.with_epochs`).
GLUE_EPOCHS, GLUE_BATCH_SIZES, GLUE_LEARNING_RATES = 10, (16, 32, 64), (1e-4, 5e-5, 2e-5, 1e-5)
GLUE_RECIPE = Recipe(num_steps=10_000, batch_size=32, learning_rate=5e-5, weight_decay=0.01, lead_steps=200)

# Classifiers pretrained on other pictures, on ImageNet; the paper's with convolutions took a tenth of the rate.
FINE_TUNING_RECIPE = replace(_IMAGENET, num_steps=131_000, lead_steps=70_000)

# The original Perceiver on ImageNet (2103.03206, section 4.1): 120 epochs of 1,281,167 pictures, with RandAugment; the
# rate falls to a tenth at the 84th, 102nd and 114th.
PERCEIVER_RECIPE = SteppedRecipe(
    num_steps=150_137,
    batch_size=1024,
    learning_rate=4e-3,
    weight_decay=0.1,
    drops_at=(105_096, 127_616, 142_630),
    max_gradient_norm=10.0,
)
