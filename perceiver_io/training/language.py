"""Masked language modelling: whole words are hidden, and the model finds their bytes (paper, section 4.1)."""

import dataclasses
import math
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.evaluation import HeldOutBatches
from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.points import masked_points
from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset

# What separates words, as ids.
_WHITESPACE = BytesTokenizer().encode(" \t\n\r\v\f")


def mask_words(
    tokens: Int[Tensor, " length"], probability: float, generator: torch.Generator
) -> Bool[Tensor, " length"]:
    """Draws words, each independently, and marks all of their bytes.

    A word is what whitespace separates, with its punctuation; the ends of the text end words too.

    Args:
        probability: of a word.
    """
    is_space = torch.isin(tokens, _WHITESPACE)
    starts = ~is_space & torch.cat([is_space.new_ones(1), is_space[:-1]])
    word = starts.cumsum(0)  # of each byte, from 1; spaces count to the word before
    drawn = torch.rand(int(word[-1]) + 1, generator=generator) < probability
    return drawn[word] & ~is_space


class MaskedWords:
    """Maps a data set of windows to one that says which bytes of them are hidden.

    Masked bytes all become `[MASK]`: whether some should be left or replaced by others, the paper does not say.

    Args:
        windows: a data set of "tokens" [length], ids of bytes.
        probability: of each word to be masked; of two, each window draws one in between.
    """

    def __init__(self, windows: Dataset, probability: float | tuple[float, float] = 0.15) -> None:
        self.windows = windows
        self.least, self.most = probability if isinstance(probability, tuple) else (probability, probability)

    def fingerprint(self) -> str:
        """Tells these from others: by the windows' own fingerprint, and how many words are hidden."""
        own = own_fingerprint(self.windows)
        return own and f"{own} {self.least} {self.most}"

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to "tokens" [length] and "masked" [length], True where a byte is hidden."""
        example = self.windows[draw]
        generator = torch.Generator().manual_seed(derived_seed(draw.seed, 1))
        probability = self.least + (self.most - self.least) * float(torch.rand((), generator=generator))
        return {**example, "masked": mask_words(example["tokens"], probability, generator)}


def masked_cross_entropy(
    logits: Float[Tensor, "batch length vocab"],
    tokens: Int[Tensor, "batch length"],
    masked: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Maps logits to the cross-entropy at the masked positions, in nats: a mean over each example, then over these.

    An example without masked positions counts as 0. So a batch's loss is the mean of its halves' losses, whichever
    process they are on.
    """
    losses = F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none").where(masked, 0.0)
    return (losses.sum(1) / masked.sum(1).clamp(min=1)).mean()


def hidden(tokens: Int[Tensor, "batch length"], masked: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """Maps tokens to what the model may see of them."""
    return tokens.masked_fill(masked, BytesTokenizer.mask_token)


class MaskedLanguageObjective:
    """Maps a model and a batch to the loss at the masked positions, which alone are decoded."""

    def prepare(self, batch: Batch) -> Batch:
        """Adds "points" [batch, points], the masked positions, to a batch; their number depends on values."""
        return batch if "points" in batch else {**batch, "points": masked_points(batch["masked"])}

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Runs the model on "tokens" [batch, length] where "masked" [batch, length] is False."""
        batch = self.prepare(batch)
        tokens, masked, points = batch["tokens"], batch["masked"], batch["points"]
        logits = model(hidden(tokens, masked), points=points)
        return {"loss": masked_cross_entropy(logits, tokens.gather(1, points), masked.gather(1, points))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageEvaluation:
    """Maps a model to how well it finds the masked bytes of held-out text.

    Args:
        dataset: of masked windows, each seen once, with the same seed every time.
        most_frequent: id of the byte to compare with: see `most_frequent_byte`.
        batch_size: windows at a time.
        num_workers: processes that prepare them.
        seed: tells one draw of what is hidden from another.
    """

    dataset: Dataset
    most_frequent: int
    batch_size: int = 64
    num_workers: int = 0
    seed: int | None = None

    @cached_property
    def _held_out(self) -> HeldOutBatches:
        seed = () if self.seed is None else (self.seed,)
        return HeldOutBatches(self.dataset, *seed, batch_size=self.batch_size, num_workers=self.num_workers)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Returns shares of all masked bytes, and the mean cross-entropy at them in nats.

        They are "accuracy", "baseline_accuracy", that of always answering `most_frequent`, and "loss".

        Raises:
            ValueError: if the text is so short that none of its words is masked.
        """
        device = next(model.parameters()).device
        batches = self._held_out.on(device)
        right, right_by_frequency, number, loss = 0, 0, 0, 0.0
        for batch in batches:
            tokens, masked = batch["tokens"], batch["masked"]
            logits, targets = model(hidden(tokens, masked))[masked].float(), tokens[masked]
            right += int((logits.argmax(-1) == targets).sum())
            right_by_frequency += int((targets == self.most_frequent).sum())
            number += len(targets)
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
        if not number:
            raise ValueError(f"no word of the {len(self.dataset)} held-out windows was hidden; give more text")
        return {
            "accuracy": right / number,
            "baseline_accuracy": right_by_frequency / number,
            "loss": loss / number,
        }


def most_frequent_byte(dataset: Dataset, most: int = 4000) -> int:
    """Maps a data set of masked windows to the id that is masked most often in them.

    Args:
        most: how many windows to look at, evenly spread.
    """
    counts = torch.zeros(BytesTokenizer.vocab_size, dtype=torch.int64)
    for index in range(0, len(dataset), math.ceil(len(dataset) / most)):
        example = dataset[Draw(index, derived_seed(index))]
        counts += example["tokens"][example["masked"]].bincount(minlength=len(counts))
    return int(counts.argmax())
