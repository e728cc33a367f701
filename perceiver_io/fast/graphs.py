"""CUDA graphs: a model's whole call recorded once per shape of its inputs, and replayed without its Python.

At small batches a GPU waits for Python to launch the next kernel; a replay launches all of them at once. `with_graphs`
gives a callable that stands beside the model, which stays what it is:

    run = with_graphs(model)
    logits = run(tokens, mask)  # the first call of a shape records it

A recording reads weights where they lay. It sees what is written into them, and is made anew once one lies elsewhere or
is of another precision, or a module is another one or has hooks. Calls that a recording cannot stand for run eagerly:
with gradients, in training mode, while something compiles, inputs on other devices, shapes beyond the number kept.
Recordings share their memory, and so take turns, also those of several threads and streams; results are copies of their
own. Nothing is looked at that the device would have to be waited for.
"""

import operator
import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from perceiver_io.fast.gate import is_watched

Result = TypeVar("Result")
# Runs before one is recorded: libraries choose kernels and make their workspaces in the first.
_WARM_UPS = 2


@runtime_checkable
class Recorder(Protocol):
    """Records runs on a device and replays them, in order."""

    def serves(self, device: torch.device) -> bool:
        """Whether runs there can be recorded."""

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Makes a device the current one, for the methods below and for replays."""

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Maps a run to what replays it, and its result, which every replay overwrites."""

    def wait_for_last(self) -> None:
        """Has the current stream wait for the last replay's `mark_last`, wherever that was."""

    def mark_last(self) -> None:
        """Marks that the current stream is done with what a replay overwrites."""


class CudaRecorder:
    """Records CUDA graphs that share a pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._last: torch.cuda.Event | None = None

    def serves(self, device: torch.device) -> bool:
        """Whether it is a CUDA device."""
        return device.type == "cuda"

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Makes a device the current one."""
        return torch.cuda.device(device)

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Records on a stream of its own, so that other threads go on."""
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            result = run()
        return graph.replay, result

    def wait_for_last(self) -> None:
        """Waits on the device, not here."""
        if self._last is not None:
            torch.cuda.current_stream().wait_event(self._last)

    def mark_last(self) -> None:
        """Records an event."""
        self._last = torch.cuda.Event()
        self._last.record()


class _Recording(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], None]
    result: Any


class WithGraphs(Generic[Result]):
    """A model's call by recordings; see `with_graphs`.

    Attributes:
        model: the model, as it is.
    """

    def __init__(self, model: Callable[..., Result], max_shapes: int, recorder: Recorder) -> None:
        self.model = model
        self._max_shapes = max_shapes
        self._recorder = recorder
        self._lock = threading.Lock()
        self._recordings: dict[Hashable, _Recording | None] = {}  # None: cannot be recorded
        self._modules: list[nn.Module] = []
        self._state: list[Any] = []
        self._addresses: list[int] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Calls the model."""
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        device, key = self._device_of(tensors), _key(leaves, structure)
        if device is None or key is None:
            return self.model(*args, **kwargs)
        with self._lock, self._recorder.on(device):
            if not self._is_unwatched():
                return self.model(*args, **kwargs)
            if key not in self._recordings and len(self._recordings) < self._max_shapes:
                self._recordings[key] = self._record(leaves, structure)
            recording = self._recordings.get(key)
            if recording is not None:
                self._recorder.wait_for_last()
                for kept, given in zip(recording.inputs, tensors, strict=True):
                    kept.copy_(given, non_blocking=True)
                recording.replay()
                result: Result = tree_map_only(Tensor, torch.clone, recording.result)
                self._recorder.mark_last()
                return result
        return self.model(*args, **kwargs)

    def forget(self) -> None:
        """Drops all recordings, and their memory with them."""
        with self._lock:
            self._recordings.clear()

    @property
    def num_recordings(self) -> int:
        """How many shapes are kept."""
        return sum(recording is not None for recording in self._recordings.values())

    def _device_of(self, tensors: list[Tensor]) -> torch.device | None:
        """Where a call with these inputs can be recorded; None for nowhere."""
        model = self.model
        if not self._max_shapes or not isinstance(model, nn.Module) or model.training:
            return None
        first = next(model.parameters(), None)
        if first is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        is_there = all(type(x) in (Tensor, nn.Parameter) and x.device == first.device for x in tensors)
        return first.device if is_there and self._recorder.serves(first.device) else None

    def _is_unwatched(self) -> bool:
        """Whether nothing acts on the call but the modules; drops recordings of others, or of other weights, before."""
        model = self.model
        assert isinstance(model, nn.Module)
        contents = self._contents()
        if not contents or len(contents) != len(self._state) or not all(map(operator.is_, contents, self._state)):
            self._modules = list(model.modules())
            self._state = self._contents()
            self._addresses = []
        addresses = [x.data_ptr() for x in self._state if isinstance(x, Tensor)]
        if addresses != self._addresses:
            self._recordings.clear()
            self._addresses = addresses
        return not is_watched(*self._modules)

    def _contents(self) -> list[Any]:
        """The classes of the modules that were there, and what they hold: parameters, buffers and modules."""
        kinds: list[Any] = [type(module) for module in self._modules]
        for module in self._modules:
            kinds += (*module._parameters.values(), *module._buffers.values(), *module._modules.values())
        return kinds

    def _record(self, leaves: list[Any], structure: TreeSpec) -> _Recording | None:
        kept = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(kept, structure)
        with suppress(RuntimeError):  # an operation that waits for the device, mostly
            replay, result = self._recorder.record(lambda: self.model(*args, **kwargs))
            return _Recording([leaf for leaf in kept if isinstance(leaf, Tensor)], replay, result)
        return None


def with_graphs(
    model: Callable[..., Result], *, max_shapes: int = 8, recorder: Recorder | None = None
) -> WithGraphs[Result]:
    """Maps a model to a callable that computes the same by CUDA graphs, and on other devices by the model itself.

    Args:
        model: in evaluation mode, called without gradients.
        max_shapes: number of shapes of inputs (and of other arguments) that are kept, each with the memory of a call's
            intermediate values as far as they do not share it; further ones run eagerly. 0 turns graphs off.
        recorder: what records; by default CUDA graphs.

    Raises:
        ValueError: for a negative number.
    """
    if max_shapes < 0:
        raise ValueError(f"max_shapes ({max_shapes}) must be at least 0; 0 turns graphs off")
    return WithGraphs(model, max_shapes, CudaRecorder() if recorder is None else recorder)


def _key(leaves: list[Any], structure: TreeSpec) -> Hashable | None:
    """What a recording depends on besides the model; None where that cannot be told."""
    described = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves]
    key = (
        tuple(described),
        str(structure),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )
    try:
        hash(key)
    except TypeError:
        return None
    return key
