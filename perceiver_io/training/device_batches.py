"""Batches on the device, copied there while the step before them is computed."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def copied(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Maps a batch to the same on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def on_device(
    batches: Iterator[dict[str, Tensor]],
    device: torch.device,
    finish: Callable[[dict[str, Tensor], torch.device], dict[str, Tensor]] = copied,
) -> Iterator[dict[str, Tensor]]:
    """Maps batches to the same on a device; on CUDA, each is made on a stream of its own before it is asked for.

    Args:
        batches: in memory, pinned where the device is CUDA.
        device: where they go.
        finish: brings a batch there.
    """
    if device.type != "cuda":
        for batch in batches:
            yield finish(batch, device)
        return
    stream = torch.cuda.Stream(device)

    def upcoming() -> dict[str, Tensor] | None:
        batch = next(batches, None)
        with torch.cuda.stream(stream):
            return None if batch is None else finish(batch, device)

    following = upcoming()
    while following is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        batch = following
        for tensor in batch.values():
            tensor.record_stream(current)  # its memory is not given away while the step uses it
        following = upcoming()
        yield batch
