"""What may be seen: padding, and the order that causal attention relies on.

Inside the model, sequences of a batch end at the same column: padding goes to the left. Latents are then the last
columns for all examples, and attending causally is one rule for all, aligned at the bottom right.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from perceiver_io.checks import has_values


class Keep(NamedTuple):
    """Which keys dropout leaves, drawn anew in each training step.

    Attributes:
        inputs: [batch, inputs], True where latents may attend to an input, in the order of the tokens; None for all.
        latents: [batch, latents], True where later latents may attend to a latent; its own always does. None for all.
    """

    inputs: Bool[Tensor, "batch inputs"] | None = None
    latents: Bool[Tensor, "batch latents"] | None = None


def valid_tokens(tokens: Int[Tensor, "batch inputs"], pad_token: int | None) -> Bool[Tensor, "batch inputs"] | None:
    """Maps right-padded tokens to where they are valid: before the first padding token. None for everywhere."""
    if pad_token is None:
        return None
    valid = tokens != pad_token
    return None if has_values(tokens) and valid.all() else valid.cumprod(dim=1).bool()


def right_aligned(valid: Bool[Tensor, "batch inputs"]) -> Int[Tensor, "batch inputs"]:
    """Maps where tokens are valid, in one run per example, to the order of columns that puts the run at the end."""
    columns = torch.arange(valid.shape[1], device=valid.device)
    first = valid.int().argmax(dim=1, keepdim=True)
    return (columns + first + valid.sum(dim=1, keepdim=True)) % valid.shape[1]


def checked_runs(valid: Bool[Tensor, "batch inputs"]) -> Bool[Tensor, "batch inputs"] | None:
    """Checks that each example's valid tokens are one run, and maps the mask to None if it leaves out nothing.

    Raises:
        ValueError: if there is padding between tokens.
    """
    if not has_values(valid):
        return valid
    if valid.all():
        return None
    runs = valid[:, 0].int() + (valid[:, 1:] & ~valid[:, :-1]).sum(dim=1)
    if (runs > 1).any():
        row = int((runs > 1).nonzero()[0, 0])
        raise ValueError(
            f"mask has valid tokens in {int(runs[row])} runs in example {row}; padding must lie before or after the "
            "tokens, not between them: cut it out"
        )
    return valid


def draw_keep(
    batch: int,
    num_inputs: int,
    num_latents: int,
    *,
    input_dropout_prob: float = 0.0,
    prefix_dropout_prob: float = 0.0,
    num_training_inputs: int | None = None,
    latent_dropout_prob: float = 0.0,
    device: torch.device | None = None,
) -> Keep:
    """Draws which keys a training step keeps.

    Args:
        input_dropout_prob: probability that an input is dropped, each on its own, the latents' own included.
        prefix_dropout_prob: fraction of the inputs before the latents that is dropped, in number rounded down
            (krasserm's way).
        num_training_inputs: keep just so many inputs, at random; None for all.
        latent_dropout_prob: probability that a latent is dropped for all latents but itself.
    """
    inputs = latents = None
    if input_dropout_prob:
        inputs = torch.rand(batch, num_inputs, device=device) >= input_dropout_prob
    if num_training_inputs is not None and num_training_inputs < num_inputs:
        chosen = _exactly(num_training_inputs, batch, num_inputs, device)
        inputs = chosen if inputs is None else inputs & chosen
    prefix = num_inputs - num_latents
    if prefix_dropout_prob and prefix > 0:
        kept = _exactly(prefix - int(prefix * prefix_dropout_prob), batch, prefix, device)
        kept = torch.cat([kept, kept.new_ones(batch, num_latents)], dim=1)
        inputs = kept if inputs is None else inputs & kept
    if latent_dropout_prob:
        latents = torch.rand(batch, num_latents, device=device) >= latent_dropout_prob
    return Keep(inputs, latents)


def _exactly(number: int, batch: int, columns: int, device: torch.device | None) -> Bool[Tensor, "batch columns"]:
    chosen = torch.rand(batch, columns, device=device).topk(number, dim=1).indices
    return torch.zeros(batch, columns, dtype=torch.bool, device=device).scatter_(1, chosen, True)


def cross_mask(
    valid: Bool[Tensor, "batch inputs"] | None,
    keep: Bool[Tensor, "batch inputs"] | None,
) -> Bool[Tensor, "batch 1 inputs"] | None:
    """Which inputs latents may attend to, apart from their order; None for all."""
    if valid is not None and keep is not None:
        valid = valid & keep
    elif valid is None:
        valid = keep
    return None if valid is None else valid[:, None, :]


def self_mask(
    valid: Bool[Tensor, "batch latents"] | None,
    keep: Bool[Tensor, "batch latents"] | None,
) -> Bool[Tensor, "batch #latents latents"] | None:
    """Which latents latents may attend to, apart from their order; None for all."""
    mask = None if valid is None else valid[:, None, :]
    if keep is None:
        return mask
    own = torch.eye(keep.shape[1], dtype=torch.bool, device=keep.device)
    kept = keep[:, None, :] | own
    return kept if mask is None else mask & kept


def repeated_order(
    num_positions: int, num_inputs: int, repeats: int, device: torch.device | None = None
) -> Bool[Tensor, "1 latents inputs"]:
    """The causal rule for several latents a position, which see one another."""
    order = torch.ones(num_positions, num_inputs, dtype=torch.bool, device=device).tril(num_inputs - num_positions)
    return order.repeat_interleave(repeats, dim=0)[None]
