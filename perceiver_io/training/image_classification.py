"""Image classification: mixed pictures, soft labels, and the share of pictures whose class is right."""

import dataclasses
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perceiver_io.checks import has_values
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset

Images = Float[Tensor, "batch channels height width"]


class Pairs:
    """Maps a data set to one of pairs: each example with another, drawn at random, to be mixed with it.

    The partner's entries have the prefix `partner_`. As in the reference, a batch of mixed pictures takes two batches
    of sources.

    Args:
        dataset: a data set whose examples are to be paired.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def fingerprint(self) -> str:
        """Tells these pairs from others: by the data set's own fingerprint."""
        return own_fingerprint(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Batch:
        generator = torch.Generator().manual_seed(derived_seed(draw.seed, 1))
        partner = Draw(int(torch.randint(len(self), (), generator=generator)), derived_seed(draw.seed, 2))
        partner_entries = {f"partner_{name}": value for name, value in self.dataset[partner].items()}
        return {**self.dataset[draw], **partner_entries}


def mix(images: Images, partners: Images, generator: torch.Generator) -> tuple[Images, Float[Tensor, " batch"]]:
    """Maps pictures and partners to mixed ones, half of them by mixup and the others by CutMix.

    Source: the reference's `my_mixup_cutmix`.

    Returns:
        The mixed pictures, and the share of `images` in each.
    """
    half = len(images) // 2
    size = (images.shape[2], images.shape[3])
    shares = mixup_shares(half, generator)
    masks = torch.cat(
        [
            shares[:, None, None].expand(-1, *size),
            torch.stack([cutmix_mask(size, generator) for _ in range(len(images) - half)]),
        ]
    ).to(images, non_blocking=True)
    mixed = masks[:, None] * images + (1 - masks[:, None]) * partners
    return mixed, masks.mean((1, 2))


def mixup_shares(number: int, generator: torch.Generator, alpha: float = 0.2) -> Float[Tensor, " number"]:
    """Draws shares from Beta(alpha, alpha): mostly close to 0 or 1 (Zhang et al., "mixup", 2018)."""
    # PyTorch's beta distribution cannot be given a generator.
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, number)).float()


def cutmix_mask(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "height width"]:
    """Draws a rectangle of ones among zeros, shaped as the picture (Yun et al., "CutMix", 2019).

    Its area is uniformly distributed, and so is its centre; what lies outside the picture is cut off.

    Args:
        size: height and width of the picture.
    """
    part = float(1 - torch.rand((), generator=generator)) ** 0.5
    mask = torch.zeros(size)
    rows, columns = (_span(side, part, generator) for side in size)
    mask[rows, columns] = 1
    return mask


def _span(side: int, part: float, generator: torch.Generator) -> slice:
    centre, half = int(torch.randint(side, (), generator=generator)), int(part * side) // 2
    return slice(max(0, centre - half), centre + half)


def soft_targets(
    labels: Int[Tensor, " batch"],
    num_classes: int,
    *,
    smoothing: float = 0.0,
    partner_labels: Int[Tensor, " batch"] | None = None,
    shares: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch {num_classes}"]:
    """Maps labels to distributions over the classes: mixed as the pictures were, then smoothed.

    Args:
        num_classes: number of classes.
        smoothing: share of the uniform distribution.
        partner_labels: of the pictures mixed in.
        shares: of the first pictures in the mixed ones.

    Raises:
        ValueError: for a label that is none of the classes.
    """
    targets = _one_hot(labels, num_classes)
    if partner_labels is not None and shares is not None:
        targets = shares[:, None] * targets + (1 - shares[:, None]) * _one_hot(partner_labels, num_classes)
    return (1 - smoothing) * targets + smoothing / num_classes


def _one_hot(labels: Int[Tensor, " batch"], num_classes: int) -> Float[Tensor, "batch {num_classes}"]:
    if has_values(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels {int(labels.min())}…{int(labels.max())} must lie in 0…{num_classes - 1}, the model's classes; "
            "train a model with as many classes as the data have"
        )
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()  # one_hot looks at values


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Maps logits and distributions over the classes to the mean cross-entropy, in nats."""
    return -(targets * logits.float().log_softmax(-1)).sum(-1).mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationObjective:
    """Maps a model and a batch to the loss; pictures that come with a partner are mixed with it.

    Args:
        label_smoothing: share of the uniform distribution in the targets.
    """

    label_smoothing: float = 0.1

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "image" [batch, 3, height, width] and "label" [batch]."""
        images, shares = batch["image"], None
        if "partner_image" in batch:
            images, shares = mix(images, batch["partner_image"], generator)
        logits = model(images)
        targets = soft_targets(
            batch["label"],
            logits.shape[-1],
            smoothing=self.label_smoothing,
            partner_labels=batch.get("partner_label"),
            shares=shares,
        )
        accuracy = (logits.argmax(-1) == targets.argmax(-1)).float().mean()
        return {"loss": soft_cross_entropy(logits, targets), "accuracy": accuracy}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation:
    """Maps a model to its accuracy on held-out pictures.

    Args:
        dataset: of prepared pictures, each seen once, with the same seed every time.
        batch_size: pictures at a time.
        num_workers: processes that prepare them.
    """

    dataset: Dataset
    batch_size: int = 64
    num_workers: int = 0

    @cached_property
    def _held_out(self) -> HeldOutBatches:
        return HeldOutBatches(self.dataset, batch_size=self.batch_size, num_workers=self.num_workers)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns "accuracy", the share of right classes, and "loss", the cross-entropy without smoothing."""
        device = next(model.parameters()).device
        batches = self._held_out.on(device)
        right, loss = 0, 0.0
        for batch in batches:
            logits, labels = model(batch["image"]).float(), batch["label"]
            right += int((logits.argmax(-1) == labels).sum())
            loss += float(soft_cross_entropy(logits, soft_targets(labels, logits.shape[-1]))) * len(labels)
        return {"accuracy": right / len(self.dataset), "loss": loss / len(self.dataset)}
