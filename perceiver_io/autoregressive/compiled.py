"""A step of generation as one program, for `torch.compile`.

A step with the cache sees one entry more than the one before, so that compiling it as it is compiles each step anew.
Here nothing that the program sees changes but values: new keys and values go where a tensor says, and attention is over
the whole buffers, of which a mask leaves out what is not held yet. That is more work than a step needs, up to the
length of the buffers, and on a CPU slower than `fast.generation`. It is for accelerators, where starting each operation
costs more than the operation: there the program is one CUDA graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perceiver_io.autoregressive.cache import Cache, KVCache, Slots


class CompiledStep:
    """Maps one new token of each sequence to the logits of what comes next, as `next_logits` with a cache does.

    Args:
        model: a `PerceiverAR` in evaluation mode.
        cache: that a prompt has been read into. It may be cleared and filled again.
        backend: of `torch.compile`.
    """

    def __init__(self, model: Any, cache: Cache, backend: str | Callable[..., Any] = "inductor") -> None:
        self._model, self._cache = model, cache
        is_cuda = model.embedding.weight.is_cuda
        for layer in (*cache.cross_attends, *cache.self_attends):
            for buffer in (layer.keys, layer.values):
                assert buffer is not None
                if is_cuda:  # a graph may write to memory that stays where it is
                    torch._dynamo.mark_static_address(buffer)
        mode = "reduce-overhead" if is_cuda and backend == "inductor" else None
        # Without `fullgraph`: past PyTorch's limit of programs for one function, steps run as they are.
        self._program = torch.compile(self._run, dynamic=False, backend=backend, mode=mode)

    def __call__(
        self, tokens: Int[Tensor, "batch 1"], positions: Int[Tensor, "#batch 1 axes"] | None = None
    ) -> Float[Tensor, "batch vocab"]:
        """Adds the tokens to the cache."""
        tokens, positions, _, _ = self._model._aligned(tokens, positions, None, self._cache)
        inputs, latents = self._cache.inputs, self._cache.latents
        for slots in (inputs, latents):
            slots.advance(1, None)
        places = (*place(inputs, tokens, inputs.capacity), *place(latents, tokens, latents.capacity))
        logits: Tensor = self._program(tokens, positions, *places)
        return logits.clone()  # a graph's result lies where that of the next step will

    def _run(self, *arguments: Tensor) -> Tensor:
        return step_logits(self._model, self._cache, self._model._attend, *arguments)


def step_logits(
    model: Any,
    cache: Cache,
    attend: Callable[..., Tensor],
    tokens: Int[Tensor, "batch 1"],
    positions: Int[Tensor, "#batch 1 axes"],
    input_slot: Int[Tensor, "1"],
    inputs_held: Bool[Tensor, "#batch 1 inputs"],
    latent_slot: Int[Tensor, "1"],
    latents_held: Bool[Tensor, "#batch 1 latents"],
) -> Float[Tensor, "batch vocab"]:
    """Maps one new token of each sequence to the logits of what comes next, and keeps its keys and values.

    Args:
        model: a `PerceiverAR`.
        cache: whose buffers are there.
        attend: the model's `_attend`.
        tokens: new ones.
        positions: of these.
        input_slot: place of the new input in the buffers.
        inputs_held: which of so many inputs in them count.
        latent_slot: likewise, of latents.
        latents_held: likewise.
    """
    inputs = model._embed(tokens, positions)
    latents = model.latent_query.finish(model.latent_query(inputs))
    rotations = model._rotations(positions[..., 0], 1)
    fixed = _FixedCache(
        [_FixedKVCache(layer, input_slot, inputs_held.shape[-1]) for layer in cache.cross_attends],
        [_FixedKVCache(layer, latent_slot, latents_held.shape[-1]) for layer in cache.self_attends],
    )
    logits: Tensor = model._logits(attend(latents, inputs, (inputs_held, latents_held), rotations, fixed))
    return logits[:, 0]


class _FixedKVCache:
    """The keys and values of one attention, as many as fit a size."""

    def __init__(self, cache: KVCache, slot: Tensor, size: int) -> None:
        self.cache, self.slot, self.size = cache, slot, size

    def __call__(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.keys, self.cache.values
        assert keys is not None and values is not None
        keys.index_copy_(2, self.slot, key)
        values.index_copy_(2, self.slot, value)
        return keys[:, :, : self.size], values[:, :, : self.size]


class _FixedCache(Cache):
    """What `PerceiverAR._attend` takes of a cache."""

    cross_attends: Any
    self_attends: Any

    def __init__(self, cross_attends: list[_FixedKVCache], self_attends: list[_FixedKVCache]) -> None:
        self.cross_attends, self.self_attends = cross_attends, self_attends


def place(slots: Slots, like: Tensor, size: int) -> tuple[Int[Tensor, "1"], Bool[Tensor, "#batch 1 {size}"]]:
    """Where the newest entry goes, and which of the first entries, `size` of them, count."""
    held = torch.arange(size, device=like.device)[None, None] < slots.held
    if slots.valid is not None:
        held = held & slots.valid[:, None, :size]
    return torch.full((1,), slots.new.start, device=like.device), held
