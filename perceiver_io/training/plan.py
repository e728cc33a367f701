"""The memory and the time of a run, before it is begun."""

import math
from typing import NamedTuple

from torch import nn

from perceiver_io.training.cards import Card
from perceiver_io.training.distributed import Strategy
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.settings import AUTOCAST, Dataset, Objective, Precision
from perceiver_io.training.step_cost import first_examples, optimizer_bytes, step_cost

# Left free, for the driver's own and for gaps between tensors.
_SPARE = 0.1
# The micro-batches that are planned with; what is in between is a line.
_SMALL, _LARGE = 2, 4


class Plan(NamedTuple):
    """Needs of a run, in bytes of one card, and its time.

    Attributes:
        parameters: how many.
        weight_bytes: of parameters and buffers, with their average if one is kept.
        gradient_bytes: with what DDP exchanges them in.
        optimizer_bytes: of its state.
        fixed_bytes: kept for the backward pass whatever the number of examples: products' copies of the weights.
        example_bytes: kept for each example of a micro-batch.
        peak_example_bytes: at the worst moment, for each example.
        largest_micro_batch: examples that fit; 0 if none do.
        accumulation: micro-batches of an update, the fewest.
        example_flops: of the forward and the backward pass.
        run_flops: of the whole run.
        seconds_per_step: at the utilisation that was asked for.
        hours: of the whole run.
    """

    parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    fixed_bytes: int
    example_bytes: int
    peak_example_bytes: int
    largest_micro_batch: int
    accumulation: int
    example_flops: int
    run_flops: int
    seconds_per_step: float
    hours: float


def plan_run(
    model: nn.Module,
    objective: Objective,
    dataset: Dataset,
    recipe: Recipe,
    card: Card,
    *,
    num_cards: int = 1,
    precision: Precision = "float32",
    strategy: Strategy = "ddp",
    averaged: bool = False,
    utilisation: float = 0.4,
) -> Plan:
    """Maps a run to its needs, without running the model: see `step_cost`.

    Args:
        model: in the state in which it is trained, on any device; it stays as it is.
        objective: see `Trainer`.
        dataset: see `Trainer`; its first examples are looked at.
        recipe: of the run.
        card: to train on.
        num_cards: how many of them.
        precision: of the products.
        strategy: of several cards: "fsdp" shares weights, gradients and the optimiser's state among them.
        averaged: whether an average of the weights is kept.
        utilisation: share of the card's most operations that the run will reach; 0.3 to 0.5 are usual.

    Raises:
        ValueError: for a utilisation that is no share, for less than one card, or for a batch that the cards cannot
            share evenly.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation ({utilisation}) must be more than 0 and at most 1")
    if num_cards < 1:
        raise ValueError(f"the number of cards ({num_cards}) must be at least 1")
    if recipe.batch_size % num_cards:
        raise ValueError(f"batch_size ({recipe.batch_size}) must be a multiple of the {num_cards} cards; change one")
    model.train()
    small, large = (
        step_cost(model, objective, first_examples(dataset, number), autocast=AUTOCAST.get(precision))
        for number in (_SMALL, _LARGE)
    )
    fixed_bytes, example_bytes = _line(small.activation_bytes, large.activation_bytes)
    peak_fixed_bytes, peak_example_bytes = _line(small.peak_bytes, large.peak_bytes)

    shards = num_cards if strategy == "fsdp" else 1
    weights = sum(t.nbytes for t in model.state_dict().values()) * (2 if averaged else 1) // shards
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad) // shards
    if strategy == "ddp" and num_cards > 1:
        gradients *= 2  # its buckets
    state = optimizer_bytes(model, recipe.make_optimizer) // shards
    left = (1 - _SPARE) * card.memory_bytes - weights - gradients - state - peak_fixed_bytes
    largest = max(0, math.floor(left / peak_example_bytes))

    share = recipe.batch_size // num_cards
    accumulation = next((n for n in range(1, share + 1) if share % n == 0 and share // n <= largest), share)
    example_flops = (large.flops - small.flops) // (_LARGE - _SMALL)
    seconds = share * example_flops / (card.flops(precision) * utilisation)
    return Plan(
        parameters=sum(p.numel() for p in model.parameters()),
        weight_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=state,
        fixed_bytes=fixed_bytes,
        example_bytes=example_bytes,
        peak_example_bytes=peak_example_bytes,
        largest_micro_batch=largest,
        accumulation=accumulation,
        example_flops=example_flops,
        run_flops=example_flops * recipe.batch_size * recipe.num_steps,
        seconds_per_step=seconds,
        hours=seconds * recipe.num_steps / 3600,
    )


def _line(small: int, large: int) -> tuple[int, int]:
    """What is there without an example, and what each adds."""
    slope = (large - small) // (_LARGE - _SMALL)
    return max(0, small - _SMALL * slope), slope


def describe_plan(plan: Plan, recipe: Recipe, *, card: str, num_cards: int, precision: str, utilisation: float) -> str:
    """Maps a plan to a table for people."""
    share = recipe.batch_size // num_cards
    micro_batch = share // plan.accumulation
    cards = f"{num_cards} × {card}"
    if plan.largest_micro_batch:
        fits = f"{plan.largest_micro_batch:,} examples on {card}, a tenth of whose memory is left free"
        split = f"{recipe.batch_size:,} examples: {micro_batch:,} × {plan.accumulation} times × {num_cards} cards"
    else:
        fits = f"none: {card} is too small; try --precision bfloat16, --gradient-checkpointing, --strategy fsdp"
        split = f"{recipe.batch_size:,} examples, of which not one fits"
    rows = {
        "parameters": f"{plan.parameters:,}",
        "weights": _size(plan.weight_bytes),
        "gradients": _size(plan.gradient_bytes),
        "optimiser's state": f"{_size(plan.optimizer_bytes)} ({recipe.optimizer})",
        "activations": f"{_size(plan.fixed_bytes)} + {_size(plan.example_bytes)} an example, {precision}; "
        f"{_size(plan.peak_example_bytes)} at the worst moment",
        "largest micro-batch": fits,
        "batch": split,
        "work": f"{_operations(plan.example_flops)} an example, {_operations(plan.run_flops)} for "
        f"{recipe.num_steps:,} updates",
        "time": f"{plan.seconds_per_step:.3g} s an update, {plan.hours:,.3g} hours in all, at {utilisation:.0%} of "
        f"what {cards} can do; data and exchange are left out",
    }
    return "\n".join(f"{name:<20} {text}" for name, text in rows.items())


def _size(number: int) -> str:
    return _short(number, "B")


def _operations(number: int) -> str:
    return _short(number, "FLOP")


def _short(number: int | float, unit: str) -> str:
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}"
