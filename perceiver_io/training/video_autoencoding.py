"""Autoencoding of video, sound and label: the weighted sum of three losses at sampled points (paper, section 4.4)."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.models import VideoAutoencodingConfig
from perceiver_io.position_encoding import select_rows
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.image_classification import soft_targets
from perceiver_io.training.points import draw_points
from perceiver_io.training.trainer import Batch, Dataset


def autoencoding_losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """Maps outputs and targets of the same names to mean absolute errors and the label's cross-entropy.

    Args:
        outputs: "image" and "audio" of any shape, and "label", logits [batch, classes].
        targets: "image" and "audio" of the same shapes, and "label" [batch], numbers of classes.
    """
    return {
        "image": F.l1_loss(outputs["image"], targets["image"]),
        "audio": F.l1_loss(outputs["audio"], targets["audio"]),
        "label": F.cross_entropy(outputs["label"], targets["label"]),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoAutoencodingObjective:
    """Maps a model and a batch of clips to the weighted loss at points drawn for each example.

    Without its label, which is hidden for a part of the examples, the model learns to infer it. Source: the paper's
    section 4.4 and supplement.

    Args:
        config: of the model.
        image_weight: of the mean absolute error of the pixels, 0…1.
        audio_weight: of the mean absolute error of the sound, -1…1.
        label_weight: of the label's cross-entropy.
        num_image_points: pixels to decode for an example; all of them if there are no more.
        num_audio_points: audio patches to decode for an example, likewise. The paper counts points; the model's audio
            queries stand for patches.
        label_mask_prob: probability that an example's label is hidden.
    """

    config: VideoAutoencodingConfig
    image_weight: float = 0.03
    audio_weight: float = 1.0
    label_weight: float = 1e-4
    num_image_points: int = 512
    num_audio_points: int = 512
    label_mask_prob: float = 0.5

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "video" [batch, time, 3, height, width], "audio" [batch, samples, 1], "label" [batch].

        Returns:
            "loss", and what it is the weighted sum of.

        Raises:
            ValueError: for a label that is none of the classes.
        """
        video, label = batch["video"], batch["label"]
        pixels = rearrange(video, "batch time channels height width -> batch (time height width) channels")
        patches = batch["audio"].unflatten(1, (self.config.num_audio_patches, -1)).squeeze(-1)
        visible = torch.rand(len(label), 1, generator=generator) >= self.label_mask_prob
        image_points, audio_points = (
            draw_points(len(label), rows.shape[1], number, generator).to(video.device, non_blocking=True)
            for rows, number in ((pixels, self.num_image_points), (patches, self.num_audio_points))
        )
        outputs = model(
            video,
            batch["audio"],
            points={"image": image_points, "audio": audio_points},
            label=soft_targets(label, self.config.num_classes) * visible.to(video.device, non_blocking=True),
        )
        targets = {
            "image": select_rows(pixels, image_points),
            "audio": select_rows(patches, audio_points).flatten(1),
            "label": label,
        }
        losses = autoencoding_losses(outputs, targets)
        weights = {"image": self.image_weight, "audio": self.audio_weight, "label": self.label_weight}
        loss = torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()
        return {"loss": loss, **{f"{name}_loss": value for name, value in losses.items()}}


def psnr(
    outputs: Float[Tensor, "batch ..."], targets: Float[Tensor, "batch ..."], peak: float = 1.0
) -> Float[Tensor, "batch"]:
    """Maps outputs and targets to each example's peak signal-to-noise ratio in dB, 10 log10(peak² / squared error).

    Args:
        peak: the value that errors are compared with.
    """
    error = (outputs.float() - targets.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoAutoencodingEvaluation:
    """Maps a model to how well it rebuilds held-out clips and, with the label masked, finds their label.

    Peaks are 1 for pixels (0…1) and 1 for sound (-1…1), whose figure would be 6.02 dB higher if its whole range of 2
    were the peak; the paper does not say which one it is. Outputs are clipped to their range.

    Args:
        dataset: of clips, each seen once.
        seed: of the draws: for clips that are made up, another seed than training's.
        batch_size: clips at a time.
        num_workers: processes that load them.
    """

    dataset: Dataset
    seed: int = 0
    batch_size: int = 16
    num_workers: int = 0

    @cached_property
    def _held_out(self) -> HeldOutBatches:
        return HeldOutBatches(self.dataset, self.seed, batch_size=self.batch_size, num_workers=self.num_workers)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns "image_psnr" and "audio_psnr" in dB, means over clips, and "label_accuracy"."""
        device = next(model.parameters()).device
        batches = self._held_out.on(device)
        figures: dict[str, list[Tensor]] = {"image_psnr": [], "audio_psnr": [], "label_accuracy": []}
        for batch in batches:
            video, audio, label = (batch[name] for name in ("video", "audio", "label"))
            outputs = model(video, audio)
            figures["image_psnr"].append(psnr(outputs["image"].clamp(0, 1), video))
            figures["audio_psnr"].append(psnr(outputs["audio"].clamp(-1, 1), audio))
            figures["label_accuracy"].append((outputs["label"].argmax(-1) == label).float())
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}
