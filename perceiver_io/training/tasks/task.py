"""A task of training: its options, its data, its loss and its evaluation, for the command that runs it."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from perceiver_io.models.config import ModelConfig
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.recipes import Recipe
from perceiver_io.training.trainer import Dataset, Evaluation, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
    """All that a run learns from and is measured by.

    Args:
        config: of the model that suits the data, for instance with its number of classes.
        dataset: to learn from.
        objective: see `Trainer`.
        evaluate: see `Trainer`; on data that are not learned from.
        description: of the data, for the notes that stay with the model.
        class_names: in the order of the logits; None for a model without classes.
        skipping: data sets that leave examples out, which is told of at the end.
        initialise: changes a new model before it is trained; None leaves it as the reference starts.
    """

    config: ModelConfig
    dataset: Dataset
    objective: Objective
    evaluate: Evaluation
    description: str
    class_names: Sequence[str] | None = None
    skipping: Sequence[SkipUnusable] = ()
    initialise: Callable[[Any], None] | None = None


def check_apart(arguments: argparse.Namespace) -> None:
    """Checks, where folders are classes, that `--output` does not lie in `--data`: it would become a class.

    Raises:
        ValueError: if it does.
    """
    output = arguments.output.resolve()
    if arguments.data.resolve() in (output, *output.parents):
        raise ValueError(
            f"--output {arguments.output} lies in --data {arguments.data}, whose folders are classes, and the next run "
            "would take it for one; choose another --output"
        )


# Maps the command's arguments and a configuration to material.
Prepare = Callable[[argparse.Namespace, Any], Material]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyRun:
    """A small model that learns within minutes; `examples/tiny` has one for each task.

    Args:
        config: of the model.
        recipe: of its training.
        prepare: as `Task.prepare`, also without `--data`.
        data: the end of `--data`'s help: what is learned from without it.
    """

    config: ModelConfig
    recipe: Recipe
    prepare: Prepare
    data: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task as `perceiver-io train` runs it.

    Args:
        name: on the command line, and of its directory under outputs/train.
        description: the first line of its help.
        presets: released models that it trains, by the paper's recipes.
        config_class: of its models' configurations, and of those that it starts from.
        fine_tuning_recipe: for `--from`.
        data: the help of `--data`.
        prepare: maps the arguments and the model's configuration to what it learns from.
        add_arguments: adds options of its own to the parser.
        tiny: for `--tiny`; None leaves the option out.
        other_config_classes: of further models that `--from` takes.
        texts: whether `--data` is a list of texts, with shares (see `read_corpora`), and not a path.
    """

    name: str
    description: str
    presets: Sequence[str]
    config_class: type[ModelConfig]
    fine_tuning_recipe: Recipe
    data: str
    prepare: Prepare
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    tiny: TinyRun | None = None
    other_config_classes: Sequence[type[ModelConfig]] = ()
    texts: bool = False
