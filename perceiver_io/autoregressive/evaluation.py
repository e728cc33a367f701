"""How well a model predicts documents: nats and bits per token, each token counted once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.autoregressive.losses import latent_targets
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.checks import check_integers


@dataclass(frozen=True)
class Evaluation:
    """What a model made of documents.

    Attributes:
        nats: summed over the tokens.
        num_tokens: that were predicted: all but the first of each document.
        num_correct: of which the likeliest prediction was the token.
    """

    nats: float
    num_tokens: int
    num_correct: int

    @property
    def nats_per_token(self) -> float:
        """Nats of a token, on average."""
        return self.nats / self.num_tokens

    @property
    def bits_per_token(self) -> float:
        """Bits of a token, on average."""
        return self.nats_per_token / math.log(2)

    @property
    def accuracy(self) -> float:
        """Fraction of tokens that were the likeliest."""
        return self.num_correct / self.num_tokens


@dataclass(frozen=True)
class Block:
    """Consecutive predictions, and the window that they are made in.

    Attributes:
        document: its number.
        inputs: of the window.
        counted: how many of the window's last predictions count.
    """

    document: int
    inputs: slice
    counted: int


def blocks(lengths: Sequence[int], block_size: int, max_context_length: int) -> Iterator[Block]:
    """Cuts documents of so many inputs into blocks of predictions; the first of a document is the short one.

    Source: the reference's `eval_block_size`.
    """
    for document, length in enumerate(lengths):
        end = length % block_size or min(block_size, length)
        start = 0
        while start < length:
            yield Block(document, slice(max(0, end - max_context_length), end), end - start)
            start, end = end, end + block_size


def evaluate(
    model: PerceiverAR,
    documents: Sequence[Sequence[int]] | Sequence[Tensor],
    block_size: int | None = None,
    *,
    positions: Sequence[Tensor] | None = None,
    batch_size: int = 8,
) -> Evaluation:
    """Maps documents to how well a model predicts each token after the first.

    Args:
        model: in evaluation mode.
        documents: sequences of ids, such as [start, tokens…, end].
        block_size: predictions of a window that count, the last ones; by default as many as there are latents, which
            is fastest. 1 gives each prediction the longest context.
        positions: of each document's tokens, [inputs] or [inputs, axes], for models whose positions do not
            count on by themselves.
        batch_size: windows at a time.

    Raises:
        ValueError: for a model in training, no documents or ones of fewer than two tokens, or a block of more than the
            latents.
    """
    config = model.config
    most = config.num_latents // config.latents_per_position
    block_size = most if block_size is None else block_size
    if model.training:
        raise ValueError("the model is in training mode, in which it drops inputs; call model.eval() before")
    if not 1 <= block_size <= most:
        raise ValueError(f"block_size ({block_size}) must lie in 1…{most}, the positions that latents predict from")
    tensors = [torch.as_tensor(document).long() for document in documents]
    if not tensors:
        raise ValueError("there are no documents to evaluate on; give one at least")
    for number, document in enumerate(tensors):
        check_integers(f"document {number}", document, ("tokens",), config.vocab_size)
        if len(document) < 2:
            raise ValueError(f"document {number} has {len(document)} tokens; it must have 2 at least, to predict one")
    lengths = [len(document) - 1 for document in tensors]
    cut = list(blocks(lengths, block_size, config.max_context_length))
    cut.sort(key=lambda block: block.inputs.stop - block.inputs.start)  # windows of about one length together
    nats, num_correct = 0.0, 0
    for start in range(0, len(cut), batch_size):
        batch = cut[start : start + batch_size]
        loss, correct = _evaluate_batch(model, tensors, positions, batch)
        nats, num_correct = nats + loss, num_correct + correct
    return Evaluation(nats, sum(lengths), num_correct)


@torch.inference_mode()
def _evaluate_batch(
    model: PerceiverAR, documents: list[Tensor], positions: Sequence[Tensor] | None, batch: list[Block]
) -> tuple[float, int]:
    device = model.embedding.weight.device
    inputs = _padded([documents[block.document][block.inputs] for block in batch]).to(device)
    lengths = torch.tensor([block.inputs.stop - block.inputs.start for block in batch], device=device)
    valid = torch.arange(inputs.shape[1], device=device) < lengths[:, None]
    where = None
    if positions is not None:
        where = _padded([positions[block.document][block.inputs] for block in batch]).to(device)
    logits = model(inputs, where, mask=valid).float()
    following = [documents[b.document][b.inputs.start + 1 : b.inputs.stop + 1] for b in batch]
    targets, there = latent_targets(_padded(following).to(device), valid, logits.shape[1])
    counted = torch.tensor([block.counted for block in batch], device=device)[:, None]
    there = there & (torch.arange(logits.shape[1], device=device) >= logits.shape[1] - counted)
    nats = (logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0])[there].double().sum()
    return float(nats), int((logits.argmax(-1) == targets)[there].sum())


def _padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
