"""What training minimises: summed cross entropy of the next tokens, and a term that keeps logits near zero."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class TokenLosses(NamedTuple):
    """Losses of predictions, in nats.

    Attributes:
        loss: of each prediction, z-loss included.
        z_loss: the part that is `z_loss`·logsumexp².
        weight_sum: of the predictions that count.
    """

    loss: Float[Tensor, "batch predictions"]
    z_loss: Float[Tensor, "batch predictions"]
    weight_sum: Float[Tensor, ""]


def token_losses(
    logits: Float[Tensor, "batch predictions vocab"],
    targets: Int[Tensor, "batch predictions"],
    weights: Float[Tensor, "batch predictions"] | Bool[Tensor, "batch predictions"] | None = None,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> TokenLosses:
    """Maps predictions to their losses, a sum's terms. Source: the reference's `compute_weighted_cross_entropy`.

    Args:
        weights: of the predictions, default 1.
        z_loss: factor of the squared logarithm of the softmax's denominator (the reference trains with 1e-4).
        label_smoothing: probability that is spread over the other tokens; the entropy of such a target is taken off.
    """
    log_z = logits.logsumexp(dim=-1)
    loss = log_z - logits.gather(-1, targets[..., None])[..., 0]
    if label_smoothing:
        others = logits.shape[-1] - 1
        confidence, low = 1 - label_smoothing, label_smoothing / others
        own = log_z - loss  # the target's logit
        expected = confidence * own + low * (logits.sum(dim=-1) - own)
        entropy = -(confidence * math.log(confidence) + others * low * math.log(low + 1e-20))
        loss = log_z - expected - entropy
    squared = z_loss * log_z.square()
    weights = torch.ones_like(loss) if weights is None else weights.to(loss.dtype)
    return TokenLosses((loss + squared) * weights, squared * weights, weights.sum())


def latent_targets(
    targets: Int[Tensor, "batch inputs"], valid: Bool[Tensor, "batch inputs"], num_latents: int
) -> tuple[Int[Tensor, "batch latents"], Bool[Tensor, "batch latents"]]:
    """Maps the token after each input to those that the latents predict, and which of these there are.

    Args:
        targets: right-padded, as the inputs are.
        valid: where inputs are.
        num_latents: rows of logits.
    """
    lengths = valid.sum(dim=1, keepdim=True)
    places = lengths - num_latents + torch.arange(num_latents, device=targets.device)
    return targets.gather(1, places.clamp(min=0)), places >= 0


def inputs_and_targets(
    tokens: Int[Tensor, "batch window"], positions: Int[Tensor, "batch window *axes"] | None = None, pad_token: int = 0
) -> tuple[Int[Tensor, "batch inputs"], Int[Tensor, "batch inputs"], Int[Tensor, "batch inputs *axes"] | None]:
    """Maps right-padded windows to inputs (without the last valid token), targets (from the second on) and positions.

    Source: the reference's `shift_inputs_and_targets`: where a target is padding, so is its input.
    """
    targets = tokens[:, 1:]
    there = targets != pad_token
    inputs = tokens[:, :-1].masked_fill(~there, pad_token)
    if positions is not None:
        kept = there.reshape(*there.shape, *[1] * (positions.ndim - 2))
        positions = positions[:, :-1].masked_fill(~kept, 0)
    return inputs, targets, positions


def next_token_loss(
    logits: Float[Tensor, "batch latents vocab"],
    targets: Int[Tensor, "batch inputs"],
    valid: Bool[Tensor, "batch inputs"],
    *,
    pad_token: int | None = 0,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> TokenLosses:
    """Maps a model's logits, and the token after each of its inputs, to losses; padding does not count."""
    wanted, counts = latent_targets(targets, valid, logits.shape[1])
    if pad_token is not None:
        counts = counts & (wanted != pad_token)
    return token_losses(logits.float(), wanted, counts, z_loss=z_loss, label_smoothing=label_smoothing)
