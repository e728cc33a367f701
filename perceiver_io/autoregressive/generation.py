"""Generation, token by token, for prompts of different lengths at once.

A step with the cache costs one latent. The cached latents grow until they are as many as in training; then all of it is
thrown away, the sequence is read anew with fewer latents, and it goes on (the reference's way). So the policy is two
numbers, the latents at the start and after such a reset, and the logits of each step are those of a full forward pass
with as many latents as are cached. Fewer latents are other logits: a model has been trained with all of them.

Beyond `max_context_length` tokens the cache rolls: between two resets the newest tokens replace the oldest, and latents
that are cached still remember these. A warning says so once.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_io.autoregressive.cache import Cache
from perceiver_io.autoregressive.compiled import CompiledStep
from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.sampling import Sampler
from perceiver_io.checks import as_number, check_integers

Prompts = Sequence[Sequence[int]] | Sequence[Tensor] | Tensor


@runtime_checkable
class Predictor(Protocol):
    """What generation needs of a `PerceiverAR`."""

    config: PerceiverARConfig
    training: bool

    def new_cache(self, max_inputs: int | None = None, max_latents: int | None = None) -> Cache:
        """Makes an empty cache."""

    def next_logits(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        num_latents: int | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Maps tokens to the logits of what comes next."""


@dataclass(frozen=True)
class LatentPolicy:
    """How many latents there are.

    Attributes:
        start: with which the prompt is read.
        after_reset: with which the sequence is read anew, once `most` are cached.
        most: that are cached.
    """

    start: int
    after_reset: int
    most: int

    def __post_init__(self) -> None:
        for name in ("start", "after_reset"):
            if not 1 <= getattr(self, name) <= self.most:
                raise ValueError(
                    f"{'num_latents' if name == 'start' else 'reset_latents'} ({getattr(self, name)}) must lie in "
                    f"1…{self.most}, the latents that are cached; max_latents makes room for more"
                )


def latent_policy(
    trained: int, num_latents: int | str = "full", reset_latents: int | None = None, max_latents: int | None = None
) -> LatentPolicy:
    """Maps the arguments of `generate` to the numbers of latents; `trained` is the model's."""
    most = trained if max_latents is None else max_latents
    if isinstance(num_latents, str) and num_latents not in ("full", "official"):
        raise ValueError(f"num_latents ({num_latents!r}) must be a number, 'full' or 'official'")
    named = {"full": most, "official": 1}
    others = "'full' and 'official' stand for numbers, too"
    start = named[num_latents] if isinstance(num_latents, str) else as_number("num_latents", num_latents, others)
    return LatentPolicy(start, max(1, most // 2) if reset_latents is None else reset_latents, most)


class Generation(Iterator[Tensor]):
    """A generation on its way: an iterator of new tokens [batch], and what was computed for the last of them.

    A sequence that has ended is continued with padding (or, where there is none, with a stop token).

    Attributes:
        logits: [batch, vocab], that the last tokens were drawn from, as the model computed them.
        num_latents: that these were computed with.
        finished: [batch], True where a sequence has ended.
        rolled: whether the oldest tokens had been replaced.
    """

    logits: Float[Tensor, "batch vocab"]
    num_latents: int
    finished: Bool[Tensor, "batch"]
    rolled = False

    def __init__(
        self,
        model: Predictor,
        prompts: Prompts,
        *,
        max_new_tokens: int,
        sampler: Sampler,
        policy: LatentPolicy,
        device: torch.device,
        stop_tokens: Sequence[int] = (),
        seed: int | None = None,
        positions: Tensor | None = None,
        cached: bool = True,
        compiled: bool = False,
    ) -> None:
        config = model.config
        if model.training:
            raise ValueError("the model is in training mode, in which it drops inputs; call model.eval() before")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens ({max_new_tokens}) must be at least 1")
        for token in stop_tokens:
            if not 0 <= token < config.vocab_size:
                raise ValueError(f"stop_tokens {list(stop_tokens)} must lie in 0…{config.vocab_size - 1}")
        self._model, self._sampler, self._policy = model, sampler, policy
        rows = _prompt_rows(prompts, config.vocab_size, config.pad_token)
        self._prompt_lengths = torch.tensor([len(row) for row in rows], device=device)
        self._start = self._column = max(map(len, rows))
        self._end = self._start + max_new_tokens
        filler = 0 if config.pad_token is None else config.pad_token
        self._tokens = torch.full((len(rows), self._end), filler, device=device)
        self._valid = torch.ones_like(self._tokens, dtype=torch.bool)
        for row, prompt in enumerate(rows):
            self._tokens[row, self._start - len(prompt) : self._start] = prompt.to(device)
            self._valid[row, : self._start - len(prompt)] = False
        self._is_padded = bool((self._prompt_lengths < self._start).any())
        self._positions = None if positions is None else self._aligned(positions.to(device))
        self._never = [] if config.pad_token is None else [config.pad_token]
        self._stop_tokens = torch.tensor(list(stop_tokens), dtype=torch.long, device=device)
        self._filler = stop_tokens[0] if config.pad_token is None and stop_tokens else filler
        if compiled and not cached:
            raise ValueError("compile=True makes a program of the steps with the cache; leave out cache=False")
        # Programs are for one size: powers of two, so that few serve all lengths.
        most_inputs = 1 << (self._end - 1).bit_length() if compiled else self._end
        most_inputs = min(config.max_context_length, most_inputs)
        self.cache = model.new_cache(most_inputs, min(policy.most, most_inputs)) if cached else None
        self._compiles = compiled
        self._step: CompiledStep | None = None
        self._generator = torch.Generator(device)
        self._generator.seed() if seed is None else self._generator.manual_seed(int(seed))
        self.finished = torch.zeros(len(rows), dtype=torch.bool, device=device)

    @property
    def sequences(self) -> list[list[int]]:
        """Each prompt with the tokens that have come, up to and including the one that ended it."""
        lists = []
        for row, length in zip(self._tokens[:, : self._column].tolist(), self._prompt_lengths.tolist(), strict=True):
            own, stops = row[self._start - length :], set(self._stop_tokens.tolist())
            end = next((i + 1 for i in range(length, len(own)) if own[i] in stops), len(own))
            lists.append(own[:end])
        return lists

    def __next__(self) -> Int[Tensor, "batch"]:
        """Computes the next tokens.

        Raises:
            StopIteration: after the last token, or when all sequences have ended.
        """
        if self._column == self._end or (len(self._stop_tokens) and bool(self.finished.all())):
            raise StopIteration
        self.logits, self.num_latents, rolled = self._read(self._column)
        if rolled and not self.rolled:
            warnings.warn(
                f"the sequence has grown past max_context_length ({self._model.config.max_context_length}): the oldest "
                "tokens are replaced, and cached latents remember some of them until the next reset",
                stacklevel=2,
            )
        self.rolled = self.rolled or rolled
        tokens = self._choose(self.logits, self._column)
        self._column += 1
        return tokens.clone()

    @torch.inference_mode()
    def _read(self, column: int) -> tuple[Tensor, int, bool]:
        """Reads the tokens before a column, all of them or the last alone.

        Returns:
            logits of what comes next; the latents that they were computed with; and whether tokens were replaced.
        """
        cache, config = self.cache, self._model.config
        if cache is not None and cache.num_inputs and cache.num_latents < cache.latents.capacity:
            new = self._tokens[:, column - 1 : column]
            where = None if self._positions is None else self._positions[:, column - 1 : column]
            if self._compiles and self._step is None:
                self._step = CompiledStep(self._model, cache)
            logits = self._model.next_logits(new, where, cache=cache) if self._step is None else self._step(new, where)
            return logits, cache.num_latents, cache.num_inputs > cache.inputs.capacity
        if cache is None:
            wanted = self._policy.most
        else:
            wanted = self._policy.after_reset if cache.num_inputs else self._policy.start
            cache.clear()
        window = slice(max(0, column - config.max_context_length), column)
        wanted = min(wanted, (window.stop - window.start) * config.latents_per_position)
        logits = self._model.next_logits(
            self._tokens[:, window],
            None if self._positions is None else self._positions[:, window],
            wanted,
            mask=self._valid[:, window],
            cache=cache,
        )
        return logits, wanted, False

    @torch.inference_mode()
    def _choose(self, logits: Tensor, column: int) -> Int[Tensor, "batch"]:
        if self._sampler.allowed is not None and self._is_padded:
            # Sequences are at different indices, each with its own set.
            indices = (column - self._start + self._prompt_lengths).tolist()
            tokens = torch.cat(
                [
                    self._sampler(row[None], index, self._never, self._generator)
                    for row, index in zip(logits, indices, strict=True)
                ]
            )
        else:
            tokens = self._sampler(logits, column, self._never, self._generator)
        tokens = tokens.masked_fill(self.finished, self._filler)
        self._tokens[:, column] = tokens
        if len(self._stop_tokens):
            self.finished = self.finished | torch.isin(tokens, self._stop_tokens)
        return tokens

    def _aligned(self, positions: Tensor) -> Int[Tensor, "batch columns axes"]:
        """Maps the positions of each sequence's own tokens to those of the columns."""
        axes = self._model.config.num_axes
        if positions.ndim == 2 and axes == 1:
            positions = positions[..., None]
        batch, columns = self._tokens.shape
        if positions.ndim != 3 or positions.shape[0] not in (1, batch) or positions.shape[2] != axes:
            raise ValueError(f"positions {tuple(positions.shape)} must be [{batch} or 1, tokens, {axes} axes]")
        if positions.shape[1] < columns - 1:
            raise ValueError(
                f"positions of {positions.shape[1]} tokens must be given for all {columns - 1} that are read: the "
                "longest prompt and the new tokens but the last"
            )
        places = torch.arange(columns, device=positions.device) - (self._start - self._prompt_lengths[:, None])
        places = places.clamp(0, positions.shape[1] - 1)[..., None].expand(-1, -1, axes)
        return positions.expand(batch, -1, -1).gather(1, places)


def _prompt_rows(prompts: Prompts, vocab_size: int, pad_token: int | None) -> list[Int[Tensor, "_"]]:
    """Maps prompts to one tensor each, without padding.

    Raises:
        ValueError: for none, empty ones, or ids that there are not.
    """
    if isinstance(prompts, Tensor):
        check_integers("prompts", prompts, ("batch", "tokens"), vocab_size)
        ends = torch.full(prompts.shape[:1], prompts.shape[1])
        if pad_token is not None:
            ends = (prompts != pad_token).cumprod(dim=1).sum(dim=1)
        rows = [row[: int(end)].long() for row, end in zip(prompts, ends, strict=True)]
    else:
        rows = [torch.as_tensor(prompt).long() if len(prompt) else torch.empty(0).long() for prompt in prompts]
    if not rows:
        raise ValueError("prompts are empty; give one sequence of ids at least, such as [[2]], the start of a sequence")
    for number, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"prompt {number} is empty; it must have one id at least, such as the start of a sequence")
        check_integers(f"prompt {number}", row, ("tokens",), vocab_size)
        if pad_token is not None and bool((row == pad_token).any()):
            raise ValueError(f"prompt {number} has the padding token ({pad_token}) in it; cut it off")
    return rows
