"""Masked language modelling: how well hidden words are found, byte by byte (paper, section 4.1)."""

import argparse
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.evaluation.protocol import Example, Protocol, column
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.models import LanguagePerceiver
from perceiver_io.outputs import check_finite
from perceiver_io.processors import BytesTokenizer, TextProcessor
from perceiver_io.training.data.text import TextWindows, read_documents
from perceiver_io.training.data.text_rows import TEXT_COLUMN
from perceiver_io.training.language import MaskedWords, hidden
from perceiver_io.training.trainer import Batch


class TextProtocol(Protocol):
    """Measures a language model on windows of text side by side, in which whole words are hidden.

    Args:
        windows: of the text, as long as the model reads.
        masked: share of the words that are hidden.
        seed: of the words that are drawn.
        description: of the data.
    """

    columns = ("hidden bytes", "cross-entropy", "right")

    def __init__(self, windows: TextWindows, masked: float, seed: int, description: str) -> None:
        self.dataset = MaskedWords(windows, masked)
        self.length = windows.length
        self.masked = masked
        self.seed = seed
        self.description = description
        self.units = {"bits_per_masked_byte": "bits", "accuracy": "%"}
        self.published = {}

    def settings(self) -> dict[str, Any]:
        """Says what is hidden."""
        return {"masked share of words": self.masked, "seed": self.seed, "window": self.length}

    def measure(self, model: nn.Module, batch: Batch) -> Float64[Tensor, "batch columns"]:
        """Maps "tokens" and "masked" to outcomes."""
        tokens, masked = batch["tokens"], batch["masked"]
        logits = check_finite(model(hidden(tokens, masked))).double()
        losses = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        right = logits.argmax(-1) == tokens
        return torch.stack([(part * masked).sum(1).double() for part in (masked, losses, right)], dim=1)

    def figures(self, outcomes: Float64[Tensor, "samples columns"]) -> dict[str, float]:
        """Returns the bits that a hidden byte takes, the share of hidden bytes that are found, and their number."""
        number, losses, right = (column(self, outcomes, name).sum() for name in self.columns)
        return {
            "bits_per_masked_byte": float(losses / number) / math.log(2),
            "accuracy": 100 * float(right / number),
            "masked_bytes": float(number),
        }

    def badness(self, outcomes: Float64[Tensor, "samples columns"]) -> Float64[Tensor, " samples"]:
        """Returns the mean cross-entropy at a window's hidden bytes."""
        return column(self, outcomes, "cross-entropy") / column(self, outcomes, "hidden bytes").clamp_min(1)

    def example(self, model: nn.Module, sample: Batch, index: int) -> Example:
        """Shows a window with what is hidden, and with what the model puts there, in brackets."""
        tokens, masked = sample["tokens"], sample["masked"]
        filled = torch.where(masked, model(hidden(tokens, masked)).argmax(-1), tokens)
        bits = float(self.badness(self.measure(model, sample))) / math.log(2)
        return Example(
            title=f"Window {index}: {bits:.2f} bits a hidden byte",
            texts=[
                ("The text, with what is hidden in brackets", _bracketed(tokens[0].cpu(), masked[0].cpu())),
                ("What the model puts there", _bracketed(filled[0].cpu(), masked[0].cpu())),
            ],
        )


def _bracketed(tokens: Int[Tensor, " length"], masked: Bool[Tensor, " length"]) -> str:
    decode = BytesTokenizer().decode
    parts = []
    for is_masked, run in groupby(range(len(tokens)), key=lambda place: bool(masked[place])):
        text = decode(tokens[list(run)])
        parts.append(f"⟦{text}⟧" if is_masked else text)
    return "".join(parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what is hidden."""
    parser.add_argument(
        "--masked",
        type=float,
        default=0.15,
        help="share of the words that are hidden (default: the paper's %(default)s)",
    )
    parser.add_argument("--text-column", default=TEXT_COLUMN, metavar="NAME", help="of tables (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the words that are drawn (default: %(default)s)")


def prepare(arguments: argparse.Namespace, model: LanguagePerceiver, _: Sequence[str] | None) -> TextProtocol:
    """Maps `--data` to the protocol for a model."""
    if not 0 < arguments.masked <= 1:
        raise ValueError(f"--masked ({arguments.masked}) must be above 0 and at most 1")
    documents = read_documents(arguments.data, arguments.text_column)
    windows = TextWindows(documents, TextProcessor.for_model(model).max_length, random_positions=False)
    number = len(windows) * windows.length
    description = f"the first {number:,} of {windows.num_bytes:,} bytes of {arguments.data}"
    return TextProtocol(windows, arguments.masked, arguments.seed, description)


TASK = EvaluationTask(
    name="text",
    description="Finds the hidden words of texts: bits per hidden byte, and the share of bytes that are right.",
    checkpoint="language",
    models=(LanguagePerceiver,),
    data="text files, jsonl, Parquet or a saved data set of Hugging Face's, one or a folder, or one by name (hf:NAME)",
    prepare=prepare,
    batch_size=16,
    add_arguments=add_arguments,
)
