"""Options of `perceiver-io train`, and the recipe that they make."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, get_args

import torch

from perceiver_io.training import PAPER_RECIPES, PERCEIVER_RECIPE, Recipe, world
from perceiver_io.training.cards import CARDS
from perceiver_io.training.recipes import AUTOREGRESSIVE_RECIPES, OptimizerName
from perceiver_io.training.tasks import Task

DEFAULT_CARD = "h100"


def add_task_arguments(parser: argparse.ArgumentParser, task: Task) -> None:
    """Adds the options of the training for one task."""
    parser.set_defaults(task=task, tiny=False, preset=None)
    if task.presets:
        parser.add_argument(
            "--preset", choices=task.presets, help="a model of the released size, by the paper's recipe"
        )
    if task.tiny is not None:
        parser.add_argument("--tiny", action="store_true", help="a model that two cores train in minutes")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="MODEL",
        help="a directory with a model, or a name: fine-tune it" + (", or with --tiny go on with it" * bool(task.tiny)),
    )
    places: dict[str, Any] = {"nargs": "+", "metavar": "TEXTS"} if task.texts else {"type": Path, "metavar": "PATH"}
    parser.add_argument(
        "--data",
        **places,
        required=task.tiny is None,
        help=task.data + (f". Without it, --tiny takes {task.tiny.data}" if task.tiny else ""),
    )
    parser.add_argument("--freeze-encoder", action="store_true", help="train only what comes after the latents")
    task.add_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/train") / task.name,
        metavar="DIRECTORY",
        help="for the model; an unfinished run is resumed (default: %(default)s)",
    )
    recipe = parser.add_argument_group("recipe (defaults depend on how it starts)")
    for option, kind, text in (
        ("--steps", int, "updates of the weights"),
        ("--batch-size", int, "examples of an update, over all processes and micro-batches"),
        ("--learning-rate", float, "the highest"),
        ("--weight-decay", float, "of all parameters but biases and norms"),
        ("--max-gradient-norm", float, "to which gradients are scaled down, all together; inf for any"),
        ("--max-gradient-value", float, "to which each element of the gradients is cut instead"),
    ):
        recipe.add_argument(option, type=kind, default=argparse.SUPPRESS, help=text)
    recipe.add_argument(
        "--optimizer", choices=get_args(OptimizerName), default=argparse.SUPPRESS, help="of the updates"
    )
    recipe.add_argument(
        "--average", type=float, metavar="DECAY", help="keep a moving average of the weights, such as 0.9999, as result"
    )
    recipe.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    machine = parser.add_argument_group("machine")
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    machine.add_argument("--device", default=default_device, help="where to train (default: %(default)s)")
    machine.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of the products (default: %(default)s)",
    )
    machine.add_argument(
        "--compile", action="store_true", help="compile the layers of self-attention: a minute at first, faster on GPUs"
    )
    machine.add_argument("--gradient-checkpointing", action="store_true", help="recompute layers, to save memory")
    machine.add_argument(
        "--strategy",
        choices=["ddp", "fsdp"],
        default="ddp",
        help="of several processes that torchrun starts (default: %(default)s)",
    )
    for option, default, text in (
        ("--accumulation", 1, "micro-batches of an update, to save memory"),
        ("--workers", 0, "processes that load data"),
        ("--log-every", 10, "updates between two lines of figures"),
        ("--evaluate-every", 1000, "updates between two evaluations"),
        ("--checkpoint-every", 500, "updates between two saved states"),
    ):
        machine.add_argument(option, type=int, default=default, help=f"{text} (default: %(default)s)")
    machine.add_argument("--wandb", metavar="PROJECT", help="send the figures to this project of Weights & Biases, too")
    plan = parser.add_argument_group("before a run")
    plan.add_argument("--plan", action="store_true", help="say what the run needs of memory and time, and do no more")
    plan.add_argument(
        "--card",
        choices=CARDS,
        help=f"the graphics card that --plan and the log's utilisation are for (default: the one here; --plan takes "
        f"{DEFAULT_CARD} where there is none)",
    )
    plan.add_argument("--cards", type=int, help="how many of them (default: as many as the processes)")
    plan.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        help="share of a card's operations that the run will reach (default: %(default)s)",
    )


def recipe_of(task: Task, arguments: argparse.Namespace, num_examples: int) -> Recipe:
    """Maps parsed arguments to the recipe: that of the beginning, changed as they say.

    Args:
        num_examples: to learn from, for tasks whose length is given in passes over them (`--epochs`).
    """
    if arguments.tiny:
        assert task.tiny is not None
        recipe = task.tiny.recipe
    elif arguments.preset:
        recipe = (PAPER_RECIPES | AUTOREGRESSIVE_RECIPES | {"perceiver-imagenet": PERCEIVER_RECIPE})[arguments.preset]
    else:
        recipe = task.fine_tuning_recipe
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    fields = ("batch_size", "learning_rate", "weight_decay", "max_gradient_norm", "max_gradient_value", "optimizer")
    recipe = dataclasses.replace(recipe, **{name: given[name] for name in fields if name in given})
    if "steps" in given:
        return recipe.with_steps(given["steps"])
    return recipe.with_epochs(given["epochs"], num_examples) if "epochs" in given else recipe


def micro_batch_size(batch_size: int, accumulation: int) -> int:
    """Maps the examples of an update to those of a micro-batch of one process.

    Raises:
        ValueError: if they cannot be shared evenly.
    """
    parts = max(accumulation, 1) * world().size
    if batch_size % parts:
        raise ValueError(
            f"--batch-size {batch_size} must be a multiple of --accumulation times the processes ({parts}); change one"
        )
    return batch_size // parts
