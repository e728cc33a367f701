"""Batches on the device, copied there while the step before them is computed."""

from collections.abc import Iterator

import torch
from torch import Tensor


def on_device(batches: Iterator[dict[str, Tensor]], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Maps batches to the same on a device; on CUDA, each is copied on a stream of its own before it is asked for."""
    if device.type != "cuda":
        for batch in batches:
            yield _copied(batch, device)
        return
    stream = torch.cuda.Stream(device)

    def upcoming() -> dict[str, Tensor] | None:
        batch = next(batches, None)
        with torch.cuda.stream(stream):
            return None if batch is None else _copied(batch, device)

    following = upcoming()
    while following is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        batch = following
        for tensor in batch.values():
            tensor.record_stream(current)  # its memory is not given away while the step uses it
        following = upcoming()
        yield batch


def _copied(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
