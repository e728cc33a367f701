"""From logits to the next token: what is kept of the vocabulary, and the draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_io.checks import has_values

# The index of the token that is chosen, in its sequence from 0, to the ids that it may have: [vocab], True where so.
Allowed = Callable[[int], Tensor]


@dataclass(frozen=True)
class CodeBooks:
    """Which ids are allowed where several code books take turns, such as the channels of a picture. An `Allowed`.

    Index 0 is the start of the sequence; index i allows the special ids and book (i - 1) mod `num_books`. Source: the
    reference's `process_logits`, with 3 books of 256 for pictures, 24 or 44 of 1024 for SoundStream at 12 or 22 kbps.

    Args:
        num_books: how many there are.
        book_size: ids of a book.
        num_special: ids before the first book.
    """

    num_books: int
    book_size: int
    num_special: int = 3

    def __call__(self, index: int) -> Bool[Tensor, "vocab"]:
        """Maps the index of a token to the ids that it may have."""
        allowed = torch.zeros(self.num_special + self.num_books * self.book_size, dtype=torch.bool)
        start = self.num_special + (index - 1) % self.num_books * self.book_size
        allowed[: self.num_special] = True
        allowed[start : start + self.book_size] = True
        return allowed


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Chooses tokens.

    Attributes:
        temperature: that logits are divided by, after tokens have been left out; 0 takes the likeliest.
        top_k: keep the likeliest k; None for all.
        top_p: keep the fewest of the likeliest whose probabilities, at temperature 1, sum to it; 0 takes the likeliest.
        allowed: which ids may come where; None for all.

    Raises:
        ValueError: for a value that breaks these rules.
    """

    temperature: float | int = 1.0
    top_k: int | None = None
    top_p: float | int | None = None
    allowed: Allowed | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature ({self.temperature}) must be 0 (the likeliest token) or positive")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k ({self.top_k}) must be at least 1; None keeps all tokens")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p ({self.top_p}) must lie in 0…1; None (or 1) keeps all tokens")

    def filter(
        self, logits: Float[Tensor, "batch vocab"], index: int, never: Sequence[int] = ()
    ) -> Float[Tensor, "batch vocab"]:
        """Maps logits to those that a token is drawn from: -inf where it is not kept, the rest by the temperature.

        Args:
            index: of the token, in its sequence from 0.
            never: ids that are not drawn.

        Raises:
            ValueError: if nothing is left.
        """
        logits = logits.float()
        if never:
            logits = logits.clone()
            for token in never:  # one or two; a tensor of them would be copied to the device, and waited for
                logits[:, token].fill_(-torch.inf)
        if self.allowed is not None:
            allowed = self.allowed(index).to(logits.device, non_blocking=True)
            if allowed.shape != logits.shape[1:]:
                raise ValueError(
                    f"allowed({index}) {tuple(allowed.shape)} must be of the vocabulary's shape "
                    f"{tuple(logits.shape[1:])}, True where an id may come"
                )
            logits = logits.masked_fill(~allowed, -torch.inf)
            if has_values(logits) and not logits.isfinite().any():
                raise ValueError(f"allowed({index}) leaves no token but padding; allow one at least")
        threshold = None
        if self.top_k is not None and self.top_k < logits.shape[1]:
            threshold = logits.topk(self.top_k).values[:, -1:]
        if self.top_p is not None and 0 < self.top_p < 1:
            ascending = logits.sort(dim=-1).values
            beyond = ascending.softmax(dim=-1).cumsum(dim=-1) >= 1 - self.top_p
            smallest = ascending.gather(1, beyond.int().argmax(dim=-1, keepdim=True))
            threshold = smallest if threshold is None else torch.maximum(threshold, smallest)
        if threshold is not None:
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        return logits / self.temperature if self.temperature else logits

    def __call__(
        self,
        logits: Float[Tensor, "batch vocab"],
        index: int,
        never: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch"]:
        """Maps logits to one token each; arguments as in `filter`."""
        logits = self.filter(logits, index, never)
        if self.temperature == 0 or self.top_p == 0 or self.top_k == 1:
            return logits.argmax(dim=-1)
        # As torch.multinomial draws, which looks at the probabilities, and so waits for the device.
        probabilities = logits.softmax(dim=-1)
        return (probabilities / torch.empty_like(probabilities).exponential_(generator=generator)).argmax(dim=-1)
