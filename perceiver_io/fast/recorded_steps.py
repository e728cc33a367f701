"""A step of generation on a GPU as one CUDA graph.

A step sees one entry of the cache more than the one before, and a graph has fixed shapes. Here attention is over the
first entries of the buffers, a power of two of them, of which a mask leaves out those that do not hold anything yet;
new keys and values go where a tensor says. So few recordings serve all steps with a cache. They are kept with it, and
made anew for another one. Sampling stays outside.
"""

from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from perceiver_io.autoregressive.cache import Cache
from perceiver_io.autoregressive.compiled import place, step_logits
from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.checks import check_integers
from perceiver_io.fast import choice
from perceiver_io.fast.gate import computes_values_only
from perceiver_io.fast.graphs import Recordings, recordings_of

# Entries that are attended to at least, and pairs of numbers of inputs and latents that are recorded.
_FEWEST = 256
_MOST_SIZES = 32


class RecordedSteps:
    """Steps of a model with a cache that has been begun.

    Args:
        model: in evaluation mode.
        cache: it may be cleared and filled again.
    """

    def __init__(self, model: PerceiverAR, cache: Cache) -> None:
        self.model = model
        self._cache = cache
        self._step = _Step(model, cache)
        self._recordings = Recordings(_MOST_SIZES)

    def __call__(self, tokens: Int[Tensor, "batch 1"], positions: Tensor | None) -> Float[Tensor, "batch vocab"]:
        """Adds one token of each sequence to the cache, and maps it to the logits of what comes next."""
        check_integers("token ids", tokens, ("batch", "sequence"), self.model.config.vocab_size)
        tokens, positions, _, _ = self.model._aligned(tokens, positions, None, self._cache)
        places: list[Tensor] = []
        for slots in (self._cache.inputs, self._cache.latents):
            slots.advance(1, None)
            places += place(slots, tokens, min(slots.capacity, max(_FEWEST, 1 << (slots.held - 1).bit_length())))
        return self._recordings.call(self._step, self._step, (tokens, positions, *places), {})


class _Step(nn.Module):
    """A step in which all that changes is the values of tensors."""

    def __init__(self, model: PerceiverAR, cache: Cache) -> None:
        super().__init__()
        self.model = model
        self._cache = cache
        self.training = False  # `eval` would reach into the model

    def forward(self, *arguments: Tensor) -> Float[Tensor, "batch vocab"]:
        """Runs the layers one by one."""
        return step_logits(self.model, self._cache, partial(PerceiverAR._attend, self.model), *arguments)


def recorded_steps(
    model: PerceiverAR, tokens: Tensor, num_latents: int | None, mask: Tensor | None, cache: Cache | None
) -> RecordedSteps | None:
    """The recorded steps with a cache that serve a call of `next_logits`; None if none do."""
    recordings = recordings_of(model)
    is_step = cache is not None and cache.num_inputs > 0 and tokens.ndim == 2 and tokens.shape[1] == 1
    if not is_step or mask is not None or num_latents not in (None, 1) or recordings is None:
        return None
    if model.training or choice.kind_of(tokens) != "cuda" or not computes_values_only():
        return None
    assert cache is not None
    if not isinstance(cache.recorded, RecordedSteps) or cache.recorded.model is not model:
        cache.recorded = RecordedSteps(model, cache)
    return cache.recorded
