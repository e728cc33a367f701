"""Classification of texts and scores of pairs of texts, as the paper fine-tunes on GLUE."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.optional import needs_extra
from perceiver_io.training.data.glue import GlueTask, GlueTexts
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.trainer import Batch


def glue_logits(model: nn.Module, batch: Batch) -> Float[Tensor, "batch outputs"]:
    """Runs a model on "tokens" and "mask", without the padding that no example of the batch needs."""
    batch = trimmed(batch)
    return model(batch["tokens"], batch["mask"])


def trimmed(batch: Batch) -> Batch:
    """Cuts off the padding that no example of a batch needs."""
    longest = int(batch["mask"].sum(1).max())
    return {**batch, **{name: batch[name][:, :longest] for name in ("tokens", "mask")}}


def predictions(logits: Float[Tensor, "batch outputs"], task: GlueTask) -> Float[Tensor, " batch"]:
    """Maps logits to numbers of classes, or to scores."""
    return logits.argmax(-1).float() if task.classes else logits[:, 0].float()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlueObjective:
    """Maps a model and a batch to the cross-entropy, or to the squared error of scores.

    Args:
        task: of GLUE.
    """

    task: GlueTask

    def prepare(self, batch: Batch) -> Batch:
        """Cuts off the padding that no example needs."""
        return trimmed(batch)

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "tokens", "mask" and "label"."""
        logits = model(batch["tokens"], batch["mask"])
        if not self.task.classes:
            return {"loss": F.mse_loss(logits[:, 0].float(), batch["label"].float())}
        labels = batch["label"].long()
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits.float(), labels), "accuracy": accuracy}


def glue_figures(
    task: GlueTask, predicted: Float[Tensor, " examples"], labels: Float[Tensor, " examples"], groups: Tensor
) -> dict[str, float]:
    """Maps predictions to the task's official figures, in percent, and "score", their mean.

    They are Matthews' correlation for CoLA, accuracy and F1 for MRPC and QQP, Pearson's and Spearman's correlation for
    STS-B, accuracy on both files for MNLI, and accuracy for the others.

    Args:
        predicted: numbers of classes, or scores.
        labels: likewise.
        groups: number of the file in `task.evaluated` that each example is of.

    Raises:
        ImportError: torchmetrics is missing; it comes with the `evaluate` extra.
    """
    with needs_extra("computing the figures", "evaluate"):
        from torchmetrics.functional import classification, regression

    def accuracy(found: Tensor, true: Tensor) -> Tensor:
        number = max(len(task.classes), 2)
        return classification.multiclass_accuracy(found.long(), true.long(), num_classes=number, average="micro")

    def correlation(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        # Of answers or labels that are all alike it is 0; torchmetrics says something else, or NaN.
        return lambda found, true: (
            measure(found, true) if len(found.unique()) > 1 and len(true.unique()) > 1 else torch.zeros(())
        )

    metrics: Mapping[str, Callable[[Any, Any], Tensor]]
    match task.name:
        case "CoLA":
            matthews = classification.binary_matthews_corrcoef
            metrics = {"matthews": correlation(lambda found, true: matthews(found.long(), true.long()))}
        case "MRPC" | "QQP":
            metrics = {"accuracy": accuracy, "f1": lambda a, b: classification.binary_f1_score(a.long(), b.long())}
        case "STS-B":
            metrics = {
                "pearson": correlation(regression.pearson_corrcoef),
                "spearman": correlation(regression.spearman_corrcoef),
            }
        case _:
            metrics = {"accuracy": accuracy}
    figures = {}
    for number, (group, _) in enumerate(task.evaluated):
        own = groups == number
        for name, metric in metrics.items():
            figures[f"{name}_{group}" if group else name] = 100 * float(metric(predicted[own], labels[own]))
    return {**figures, "score": sum(figures.values()) / len(figures)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlueEvaluation:
    """Maps a model to a task's official figures.

    Args:
        task: of GLUE.
        dataset: of the files that are evaluated on.
        batch_size: examples at a time.
        num_workers: processes that prepare them.
    """

    task: GlueTask
    dataset: GlueTexts
    batch_size: int = 64
    num_workers: int = 0

    @cached_property
    def _held_out(self) -> HeldOutBatches:
        return HeldOutBatches(self.dataset, batch_size=self.batch_size, num_workers=self.num_workers)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns the figures of `glue_figures`."""
        device = next(model.parameters()).device
        batches = self._held_out.on(device)
        rows = [
            torch.stack(
                [predictions(glue_logits(model, batch), self.task), batch["label"].float(), batch["group"].float()]
            )
            for batch in batches
        ]
        predicted, labels, groups = torch.cat(rows, dim=1).double().cpu()
        return glue_figures(self.task, predicted, labels, groups)
