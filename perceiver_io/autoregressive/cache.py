"""The memory of generation: keys and values of each attention, in buffers that are made once.

Its one rule: **the logits of a step equal those of a full forward pass with as many latents as are cached.** Keys are
kept as they meet the queries, rotated; a position's rotation never changes. When a buffer is full, new entries replace
the oldest: attention does not mind the order of its keys.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Slots:
    """Where entries of a kind (inputs or latents) lie in the buffers of all attentions that keep that kind.

    Args:
        capacity: entries that are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forgets all entries."""
        self.count = 0  # entries so far, those included that have been replaced
        self.valid: Bool[Tensor, "batch capacity"] | None = None

    @property
    def held(self) -> int:
        """Entries that are kept now."""
        return min(self.count, self.capacity)

    def advance(self, rows: int, valid: Bool[Tensor, "batch rows"] | None) -> None:
        """Makes room for new entries, of which some may be padding.

        Raises:
            ValueError: if several are to go beyond the end.
        """
        start = self.count % self.capacity
        if start + rows > self.capacity:
            raise ValueError(
                f"the cache keeps {self.capacity} entries and holds {self.held}; {rows} more at once do not fit: give "
                "one at a time, or make the cache larger"
            )
        self.new = slice(start, start + rows)
        self.count += rows
        if valid is not None and self.valid is None:
            self.valid = torch.ones(valid.shape[0], self.capacity, dtype=torch.bool, device=valid.device)
        if self.valid is not None:
            new = self.valid[:, self.new]
            new.fill_(True) if valid is None else new.copy_(valid)

    def mask(self) -> Bool[Tensor, "batch 1 held"] | None:
        """Which of the entries are none of padding, None for all."""
        return None if self.valid is None else self.valid[:, None, : self.held]


class KVCache:
    """The keys and values of one attention. Buffers are made by the first call and never again.

    Args:
        slots: where they lie.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __call__(
        self, key: Float[Tensor, "batch heads rows qk_channels"], value: Float[Tensor, "batch heads rows v_channels"]
    ) -> tuple[Float[Tensor, "batch heads held qk_channels"], Float[Tensor, "batch heads held v_channels"]]:
        """Keeps new keys and values and returns all that are held, as views."""
        if self.keys is None or self.values is None:
            self.keys, self.values = self._buffer(key), self._buffer(value)
        self.keys[:, :, self.slots.new] = key
        self.values[:, :, self.slots.new] = value
        held = self.slots.held
        return self.keys[:, :, :held], self.values[:, :, :held]

    def _buffer(self, rows: Tensor) -> Tensor:
        batch, heads, _, channels = rows.shape
        return rows.new_zeros(batch, heads, self.slots.capacity, channels)  # masked entries must be finite


class Cache:
    """All that a `PerceiverAR` keeps between the steps of generation.

    Args:
        num_cross_attends: how many cross-attentions there are.
        num_self_attends: how many self-attentions.
        max_inputs: inputs that are kept.
        max_latents: latents that are kept.
    """

    def __init__(self, num_cross_attends: int, num_self_attends: int, max_inputs: int, max_latents: int) -> None:
        self.inputs, self.latents = Slots(max_inputs), Slots(max_latents)
        self.cross_attends = [KVCache(self.inputs) for _ in range(num_cross_attends)]
        self.self_attends = [KVCache(self.latents) for _ in range(num_self_attends)]
        self.padding: Int[Tensor, "batch 1"] | None = None
        # What a faster way through the layers looks up once for all steps.
        self.prepared: object = None
        # What replays steps, also after a clearing.
        self.recorded: object = None

    @property
    def num_inputs(self) -> int:
        """Inputs so far, padding and those that have been replaced included."""
        return self.inputs.count

    @property
    def num_latents(self) -> int:
        """Latents that are held."""
        return self.latents.held

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        buffers: Sequence[Tensor | None] = [
            buffer for layer in (*self.cross_attends, *self.self_attends) for buffer in (layer.keys, layer.values)
        ]
        return sum(buffer.nbytes for buffer in buffers if buffer is not None)

    def clear(self) -> None:
        """Forgets everything but the buffers."""
        self.inputs.clear()
        self.latents.clear()
        self.padding = self.prepared = None

    def __getstate__(self) -> dict[str, object]:
        """What copies and pickles hold: all but what is prepared and recorded, of a model, for these buffers."""
        return {**vars(self), "prepared": None, "recorded": None}
