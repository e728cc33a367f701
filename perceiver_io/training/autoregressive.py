"""Prediction of the next token: windows of sequences, the summed loss, and evaluation by blocks (Perceiver AR)."""

import dataclasses
import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_io.autoregressive.evaluation import evaluate
from perceiver_io.autoregressive.losses import inputs_and_targets, next_token_loss
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.training.data.text import Document
from perceiver_io.training.fingerprints import content_digest
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch


class SequenceWindows:
    """Maps draws to windows of documents, each of which is a sequence [start, bytes…, end].

    A window ends at a random place of its document, at least `least_length` tokens from the start, and reaches back
    `length` tokens or to the start. So a model meets contexts of all lengths. An epoch has as many windows as fit into
    the documents side by side. Source: the reference's `dataset.py`.

    Args:
        documents: bytes, arrays of them, or files.
        length: of a window, in tokens: one more than the model's inputs.
        least_length: of a window, where its document has as many tokens.

    Raises:
        ValueError: if there is no text.
    """

    def __init__(self, documents: Sequence[Document], length: int, least_length: int) -> None:
        self.documents = [document for document in documents if len(document)]
        self.length = length
        self.least_length = min(least_length, length)
        if not self.documents:
            raise ValueError("there is no text to learn from; give a file that is not empty")
        self.ends = list(accumulate(-(-(len(document) + 2) // length) for document in self.documents))

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return sum(map(len, self.documents))

    def fingerprint(self) -> str:
        """Tells these windows from others: by a digest of the documents, or of much of them, and how they are cut."""
        documents = self.documents
        lengths = list(map(len, documents))
        digest = content_digest(lengths, lambda number, start, end: bytes(documents[number][start:end]))
        cut = hashlib.sha256(str(lengths).encode()).hexdigest()
        return f"{digest} {cut} {self.length} {self.least_length}"

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to "tokens" [length], padded on the right."""
        document = self.documents[bisect_right(self.ends, draw.index)]
        total = len(document) + 2
        least = min(self.least_length, total)
        generator = torch.Generator().manual_seed(draw.seed)
        end = least + int(torch.randint(total - least + 1, (), generator=generator))
        start = max(0, end - self.length)
        tokens = torch.full((self.length,), ByteSequences.pad_token)
        tokens[: end - start] = sequence_part(document, start, end)
        return {"tokens": tokens}


def sequence_part(document: Document, start: int, end: int) -> Tensor:
    """The tokens from `start` to `end` of [start, bytes…, end], without reading the rest of the document."""
    parts = []
    if start == 0 < end:
        parts.append(np.array([ByteSequences.start_token]))
    content = bytes(document[max(0, start - 1) : max(0, end - 1)])
    parts.append(np.frombuffer(content, np.uint8).astype(np.int64) + ByteSequences.num_special_tokens)
    if start < end == len(document) + 2:
        parts.append(np.array([ByteSequences.end_token]))
    return torch.from_numpy(np.concatenate(parts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTokenObjective:
    """Maps a model and a batch of windows to the loss: summed over the predictions, a mean over the examples.

    Args:
        z_loss: see `autoregressive.losses.token_losses`.
        label_smoothing: likewise.
    """

    z_loss: float = 1e-4
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "tokens" [batch, length], padded on the right with 0."""
        inputs, targets, _ = inputs_and_targets(batch["tokens"])
        losses = next_token_loss(
            model(inputs), targets, inputs != 0, z_loss=self.z_loss, label_smoothing=self.label_smoothing
        )
        nats = (losses.loss - losses.z_loss).sum() / losses.weight_sum.clamp(min=1)
        return {"loss": losses.loss.sum() / len(inputs), "nats_per_token": nats}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTokenEvaluation:
    """Maps a model to how well it predicts held-out documents, each token after the first once.

    Args:
        documents: held-out ones.
        block_size: predictions of a window that count; None for all.
        batch_size: windows at a time.
    """

    documents: Sequence[Document]
    block_size: int | None = None
    batch_size: int = 8

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns "bits_per_token", "loss" (in nats) and "accuracy"."""
        sequences = [sequence_part(d, 0, len(d) + 2) for d in self.documents if len(d)]
        result = evaluate(cast(PerceiverAR, cast(Any, model)), sequences, self.block_size, batch_size=self.batch_size)
        return {
            "bits_per_token": result.bits_per_token,
            "loss": result.nats_per_token,
            "accuracy": result.accuracy,
        }
