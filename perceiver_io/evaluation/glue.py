"""GLUE: the official figures of each of the eight tasks that the paper takes (section 4.1)."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from perceiver_io.evaluation.protocol import Example, Protocol, column
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.models import TextClassificationPerceiver
from perceiver_io.outputs import check_finite
from perceiver_io.processors import TextProcessor, likeliest_classes
from perceiver_io.training.data.glue import (
    GLUE_TASKS,
    GlueExample,
    GlueTask,
    GlueTexts,
    find_glue_folder,
    read_glue,
)
from perceiver_io.training.text_classification import glue_figures, glue_logits, predictions
from perceiver_io.training.trainer import Batch


class GlueProtocol(Protocol):
    """Measures a model that was fine-tuned on a task of GLUE, on the task's development files.

    The test files' labels are not public.

    Args:
        task: of GLUE.
        groups: the examples of each of `task.evaluated`.
        max_length: tokens that the model reads at most.
        order: number of the task's class for each of the model's outputs.
        description: of the data.
    """

    columns = ("group", "label", "prediction", "loss")

    def __init__(
        self,
        task: GlueTask,
        groups: Sequence[Sequence[GlueExample]],
        max_length: int,
        order: Sequence[int],
        description: str,
    ) -> None:
        self.task = task
        self.texts = self.dataset = GlueTexts(groups, max_length)
        self.order = list(order)
        self.max_length = max_length
        self.description = description
        self.units = dict.fromkeys(
            ("matthews", "accuracy", "accuracy_matched", "accuracy_mismatched", "f1", "pearson", "spearman", "score"),
            "%",
        )
        self.published: Mapping[str, Mapping[str, float]] = {"score": {"average of the eight tasks": 81.0}}

    def settings(self) -> dict[str, Any]:
        """Says what is read, and what the model's outputs are."""
        return {
            "task": self.task.name,
            "files": [file for _, file in self.task.evaluated],
            "longest": self.max_length,
            "outputs": [self.task.classes[number] for number in self.order] or ["score"],
        }

    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps "tokens", "mask", "label" and "group" to outcomes."""
        logits, labels = self._logits(model, batch), batch["label"].double()
        found = predictions(logits, self.task).double()
        if self.task.classes:
            losses = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
        else:
            losses = (found - labels).square()
        return torch.stack([batch["group"].double(), labels, found, losses], dim=1)

    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Returns the task's official figures and their mean, "score", in percent."""
        groups, labels, found = (column(self, outcomes, name) for name in self.columns[:3])
        return glue_figures(self.task, found, labels, groups)

    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Returns the cross-entropy, or the squared error of a score."""
        return column(self, outcomes, "loss")

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Shows the texts, the label, and what the model says."""
        example, logits = self.texts.examples[index], self._logits(model, sample)
        texts = list(zip(self.task.texts, example.texts, strict=True))
        if not self.task.classes:
            return Example(title=f"{example.label:g}, taken for {float(logits[0, 0]):.2f}", texts=texts)
        classes = likeliest_classes(logits.float(), self.task.classes)[0]
        label = self.task.classes[int(example.label)]
        return Example(title=f"{label}, taken for {classes[0].name}", texts=texts, classes=classes)

    def _logits(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch outputs"]:
        """The model's outputs in the order of the task's classes."""
        logits = check_finite(glue_logits(model, batch)).double()
        if not self.order:
            return logits
        places = sorted(range(len(self.order)), key=self.order.__getitem__)
        return logits[:, places]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which of GLUE's tasks it is."""
    parser.add_argument("glue_task", choices=list(GLUE_TASKS), metavar="TASK", help=f"one of {', '.join(GLUE_TASKS)}")


def prepare(
    arguments: argparse.Namespace, model: TextClassificationPerceiver, names: Sequence[str] | None
) -> GlueProtocol:
    """Maps `--data` to the protocol for a model.

    Raises:
        ValueError: if the model has other outputs than the task.
    """
    task = GLUE_TASKS[arguments.glue_task]
    folder = find_glue_folder(arguments.data, task)
    if model.config.num_classes != task.num_outputs:
        raise ValueError(
            f"{arguments.checkpoint} has {model.config.num_classes} outputs and {task.name} needs {task.num_outputs}; "
            f"fine-tune a model with: perceiver-io train glue {task.name} --from MODEL --data {arguments.data}"
        )
    if names is not None and set(names) != set(task.classes):
        raise ValueError(
            f"{arguments.checkpoint} knows the classes {', '.join(names)}, and {task.name} has "
            f"{', '.join(task.classes)}; it is a model for another task"
        )
    order = [task.classes.index(name) for name in names or task.classes]
    groups = [read_glue(folder / file, task) for _, file in task.evaluated]
    description = (
        f"{sum(map(len, groups)):,} examples of {' and '.join(file for _, file in task.evaluated)} in {folder}"
    )
    return GlueProtocol(task, groups, TextProcessor.for_model(model).max_length, order, description)


TASK = EvaluationTask(
    name="glue",
    description="Classifies the texts of one of GLUE's tasks: its official figures.",
    checkpoint=None,
    models=(TextClassificationPerceiver,),
    data="GLUE's folder, or the task's, with the owners' tsv files",
    prepare=prepare,
    batch_size=32,
    add_arguments=add_arguments,
    variant=lambda arguments: arguments.glue_task,
)
