"""Masked language modelling: from texts to model input, from logits to texts filled in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from perceiver_io.checks import check_task
from perceiver_io.models import LanguagePerceiver, TextClassificationPerceiver
from perceiver_io.models.language import TextConfig
from perceiver_io.processors.class_names import ClassProbability, likeliest_classes
from perceiver_io.processors.tokenizer import BytesTokenizer

# Masks one byte of a text.
MASK = "[MASK]"
# Stands for it while phrases are looked for: a single letter that no text in UTF-8 has, and no phrase.
_MASKED = "\udfff"


class TextBatch(NamedTuple):
    """The input of a `LanguagePerceiver`: `model(*batch)`; the mask is True where there is text."""

    tokens: Int64[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]


class MaskedByte(NamedTuple):
    """A masked byte's place, and its likeliest values, best first.

    Attributes:
        position: in the model's input, in bytes.
        candidates: bytes as `BytesTokenizer.describe` writes them.
    """

    position: int
    candidates: list[ClassProbability]


class FilledText(NamedTuple):
    """A text before and after, and the candidates for each masked byte.

    Attributes:
        masked: with `[MASK]` for each masked byte.
        filled: with the likeliest byte in each place.
        masked_bytes: in the order of the text.
    """

    masked: str
    filled: str
    masked_bytes: list[MaskedByte]


class TextProcessor:
    """Maps texts to what a `LanguagePerceiver` reads, and its logits to texts filled in (language colab).

        processor = TextProcessor.for_model(model)
        batch = processor("This is an incomplete sentence.", mask=" sentence")
        print(processor.fill(batch, model(*batch))[0].filled)

    Args:
        max_length: tokens (bytes) that the model reads at most.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.tokenizer = BytesTokenizer()

    @classmethod
    def for_model(cls, model: LanguagePerceiver | TextClassificationPerceiver) -> TextProcessor:
        """Makes the processor for a model's length.

        Raises:
            ValueError: a model of another task, or one whose vocabulary is not that of bytes.
        """
        check_task("TextProcessor", model, TextConfig)
        if model.config.vocab_size != BytesTokenizer.vocab_size:
            raise ValueError(
                f"the model has a vocabulary of {model.config.vocab_size} tokens; text as bytes takes "
                f"{BytesTokenizer.vocab_size}"
            )
        return cls(model.config.max_seq_len)

    def __call__(self, texts: str | Sequence[str], mask: str | Sequence[str] = ()) -> TextBatch:
        """Maps texts to the model's input, padded to the longest, a batch even of one.

        Args:
            texts: one or several, with `[MASK]` for each byte to predict. One that is too long is cut around its masks.
            mask: phrases to mask wherever they occur in any text, also where they overlap. The byte before belongs to
                a word: " word".

        Raises:
            ValueError: no texts, a phrase that no text has, or a text that is too long and cannot be cut.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        phrases = [mask] if isinstance(mask, str) else list(mask)
        for name, values in (("text", texts), ("phrase", phrases)):
            if not all(isinstance(value, str) for value in values):
                raise ValueError(f"every {name} must be a str; token ids go to the model, with `batch` to pad them")
        for phrase in phrases:
            if not any(occurrences(text, phrase) for text in texts):
                raise ValueError(f"{phrase!r} is not in the text; mask a part of it, letter by letter")
        if not texts:
            raise ValueError("there are no texts; give at least one")
        return self.batch([self.cut(self.encode(text, phrases)) for text in texts])

    def encode(self, text: str, phrases: Sequence[str] = ()) -> Int64[Tensor, " length"]:
        """Maps a text to token ids, of any length, with each `[MASK]` and each byte of the phrases masked.

        All phrases are looked for in the text as it is given, whatever the others mask.

        Raises:
            ValueError: UTF-8 cannot hold the text.
        """
        letters = text.replace(MASK, _MASKED)
        is_masked = [letter == _MASKED for letter in letters]
        for phrase in phrases:
            length = len(phrase.replace(MASK, _MASKED))
            for start in occurrences(text, phrase):
                is_masked[start : start + length] = [True] * length
        # Runs of letters that are masked or not, each as its tokens.
        tokens = [torch.zeros(0, dtype=torch.int64)]
        start = 0
        for masked, run in groupby(is_masked):
            end = start + sum(1 for _ in run)
            piece = self.tokenizer.encode(letters[start:end].replace(_MASKED, "?"))
            tokens.append(torch.full_like(piece, self.tokenizer.mask_token) if masked else piece)
            start = end
        return torch.cat(tokens)

    def cut(self, tokens: Int64[Tensor, " length"]) -> Int64[Tensor, " shorter"]:
        """Cuts tokens to at most `max_length`, around the masked ones.

        Raises:
            ValueError: the masked tokens lie further apart than that, or none is masked.
        """
        if len(tokens) <= self.max_length:
            return tokens
        masked = (tokens == self.tokenizer.mask_token).nonzero()[:, 0]
        if not len(masked):
            raise ValueError(
                f"the text takes {len(tokens)} bytes, more than the {self.max_length} that the model reads; "
                "shorten or split it"
            )
        first, last = int(masked[0]), int(masked[-1])
        if last - first >= self.max_length:
            raise ValueError(
                f"the masked bytes span {last - first + 1} bytes of text, more than the {self.max_length} that the "
                "model reads; mask fewer or shorten the text"
            )
        start = min(max((first + last + 1 - self.max_length) // 2, 0), len(tokens) - self.max_length)
        return tokens[start : start + self.max_length]

    def batch(self, texts: Sequence[Int64[Tensor, " _"]]) -> TextBatch:
        """Maps token ids of each text to the model's input, padded to the longest.

        Raises:
            ValueError: a text is empty.
        """
        if not all(map(len, texts)):
            raise ValueError("a text is empty; the model needs at least one byte")
        length = max(map(len, texts))
        tokens, masks = zip(*(self.tokenizer.pad(text, length) for text in texts), strict=True)
        return TextBatch(torch.cat(tokens), torch.cat(masks))

    def fill(self, batch: TextBatch, logits: Float[Tensor, "batch length vocab"], top: int = 5) -> list[FilledText]:
        """Maps the model's input and output to each text filled in, with the likeliest `top` candidates for each byte.

        Raises:
            ValueError: the output does not belong to the input, or is not finite.
        """
        wanted = (*batch.tokens.shape, self.tokenizer.vocab_size)
        if not isinstance(logits, torch.Tensor) or logits.shape != wanted:
            given = tuple(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
            raise ValueError(f"the logits are {given}, not {wanted}; give what the model returned for this batch")
        return [
            self._fill(tokens[mask].cpu(), scores[mask].cpu(), top)
            for tokens, mask, scores in zip(*batch, logits, strict=True)
        ]

    def _fill(self, tokens: Int64[Tensor, " length"], logits: Float[Tensor, "length vocab"], top: int) -> FilledText:
        masked = tokens == self.tokenizer.mask_token
        positions = masked.nonzero()[:, 0]
        pieces = torch.tensor_split(tokens, positions)
        names = [self.tokenizer.describe(token) for token in range(self.tokenizer.vocab_size)]
        return FilledText(
            masked=MASK.join(self.tokenizer.decode(piece) for piece in pieces),
            filled=self.tokenizer.decode(torch.where(masked, logits.argmax(-1), tokens)),
            masked_bytes=[
                MaskedByte(position, candidates)
                for position, candidates in zip(
                    positions.tolist(), likeliest_classes(logits[positions], names, top), strict=True
                )
            ],
        )


def occurrences(text: str, phrase: str) -> list[int]:
    """Finds where a phrase occurs in a text, also overlapping itself; both may hold `[MASK]`, which is one letter.

    Returns:
        The places of its first letters, none for an empty phrase.
    """
    text, phrase = text.replace(MASK, _MASKED), phrase.replace(MASK, _MASKED)
    found = []
    place = text.find(phrase) if phrase else -1
    while place >= 0:
        found.append(place)
        place = text.find(phrase, place + 1)
    return found
