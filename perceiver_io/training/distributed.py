"""Training in several processes that `torchrun` started, by PyTorch's own engines: DDP, and FSDP2 for large models."""

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from perceiver_io.attention import CrossAttention, SelfAttention

Strategy = Literal["ddp", "fsdp"]

# By default torchrun keeps the addresses that processes have told one another when it starts them again.
_NEW_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


class World(NamedTuple):
    """The number of a process, and how many there are."""

    rank: int
    size: int


def world() -> World:
    """This process among those that train together; (0, 1) if it is alone."""
    return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World(0, 1)


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Joins the processes that `torchrun` started, if it did, and yields the device that is this one's.

    Args:
        device: "cpu", "cuda" (each local process takes one) or one of a single process, such as "cuda:1".

    Raises:
        ValueError: for a device that is not there, or if `torchrun` starts processes again in a way that would hang.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    try:
        own = torch.device(f"cuda:{local_rank}" if device == "cuda" and local_rank is not None else device)
        torch.empty(0, device=own)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"cannot use device {device}: {error}") from error
    if local_rank is None:
        yield own
        return
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and os.environ.get(_NEW_STORE) != "1":
        raise ValueError(
            f"torchrun has started the processes again, which would look for one another where the dead ones were; set "
            f"{_NEW_STORE}=1 before torchrun, or leave --max-restarts out"
        )
    if own.type == "cuda":
        torch.cuda.set_device(own)
    # By gloo sharded states are written in the background, and processes agree without their devices.
    dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    finally:
        dist.destroy_process_group()


def distribute(step: nn.Module, model: nn.Module, strategy: Strategy) -> nn.Module:
    """Maps a step of training to what is called in its place: itself, or one that works with other processes.

    All start from the first process's weights. Batch statistics stay each process's own, as in the reference.

    Args:
        step: returns losses, and nothing else that has a gradient; so what reaches no loss is known.
        model: the part of it that is trained, on its device.
        strategy: "ddp" keeps a copy in every process; "fsdp" shards the model in place, layer by layer.

    Raises:
        ValueError: for "fsdp" in a single process.
        ImportError: for "fsdp" with torch before 2.6.
    """
    if world().size == 1:
        if strategy == "fsdp":
            raise ValueError("strategy 'fsdp' needs several processes; start them with torchrun, or use 'ddp'")
        return step
    if strategy == "ddp":
        # Newer PyTorch has another name for it.
        is_new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        buffers: dict[str, Any] = {"forward_sync_buffers" if is_new else "broadcast_buffers": False}
        # A loss need not depend on all outputs, nor an output on all inputs: modalities can be masked.
        return DistributedDataParallel(step, find_unused_parameters=True, **buffers)
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ImportError(f"strategy 'fsdp' needs torch 2.6 or later, not {torch.__version__}; use 'ddp'") from error
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            fully_shard(module)
    fully_shard(model)
    return step


@contextmanager
def gradient_exchange(step: nn.Module, model: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, gradients are exchanged if `enabled`; otherwise they accumulate locally.

    Args:
        step: that `distribute` returned.
        model: that it was given.
    """
    if world().size == 1:
        yield
    elif isinstance(step, DistributedDataParallel):
        with nullcontext() if enabled else step.no_sync():
            yield
    else:
        cast(Any, model).set_requires_gradient_sync(enabled)
        with warnings.catch_warnings():
            # Changing such an output in place would be wrong; nothing here does.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            yield


def any_process(flag: bool) -> bool:
    """Whether a flag is set in any of the processes, all of which must call it; no device is waited for."""
    if world().size == 1:
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Maps scalars of each process to their means; all processes must have the same names."""
    means = torch.stack([value.detach().float() for value in values.values()])
    if world().size > 1:
        dist.all_reduce(means)
        means /= world().size
    return dict(zip(values, means.tolist(), strict=True))
