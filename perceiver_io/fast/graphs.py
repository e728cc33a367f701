"""CUDA graphs: a model's whole call recorded once per shape of its inputs, and replayed without its Python.

At small batches a GPU waits for Python to launch the next kernel; a replay launches all of them at once. Models that
`accelerate` was called for do so by themselves (`GraphedCall`); `with_graphs` gives a callable that stands beside any
model, which stays what it is:

    run = with_graphs(model)
    logits = run(tokens, mask)  # the first call of a shape records it

A recording reads weights where they lay. It sees what is written into them, and is made anew once one lies elsewhere or
is of another precision, or a module is another one or has hooks. Calls that a recording cannot stand for run eagerly:
with gradients, in training mode, while something compiles, maps or looks on, inputs on other devices or that are no
tensors or plain constants, shapes beyond the number kept, models that look at values. Recordings share their memory,
and so take turns, also those of several threads and streams; results are copies of their own. Nothing is looked at that
the device would have to be waited for.
"""

import operator
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from perceiver_io.fast.gate import HOOKS, computes_values_only, is_watched
from perceiver_io.fast.waiting import NothingWaits

Result = TypeVar("Result")
# Runs before one is recorded: compilers compile, libraries choose kernels and make their workspaces in the first.
_WARM_UPS = 2
# Arguments, besides tensors, that a recording may be kept for, and parts of results.
_CONSTANTS = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device)
# PyTorch's allocator takes one recording at a time, of all threads and models.
_ONE_AT_A_TIME = threading.RLock()
_here = threading.local()  # whether a call is being recorded in this thread


@runtime_checkable
class Recorder(Protocol):
    """Records runs on a device and replays them, in order."""

    def serves(self, device: torch.device) -> bool:
        """Whether runs there can be recorded now."""

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Makes a device the current one, for the methods below and for replays."""

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Maps a run to what replays it, and its result, which every replay overwrites."""

    def wait_for_last(self) -> None:
        """Has the current stream wait for the last replay's `mark_last`, wherever that was."""

    def mark_last(self) -> None:
        """Marks that the current stream is done with what a replay overwrites."""

    def finish(self) -> None:
        """Waits here for the last replay's `mark_last`."""


class CudaRecorder:
    """Records CUDA graphs that share a pool of memory."""

    def __init__(self) -> None:
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        # One stream records: memory of a pool is shared within a stream. And libraries keep workspaces for each, which
        # other recorders' replays must not write to meanwhile.
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._last: torch.cuda.Event | None = None

    def serves(self, device: torch.device) -> bool:
        """Whether it is a CUDA device, and nobody else is recording."""
        return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Makes a device the current one."""
        return torch.cuda.device(device)

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Records on a stream of its own, so that other threads go on."""
        current = torch.cuda.current_stream()
        if current.device not in self._streams:
            self._streams[current.device] = torch.cuda.Stream()
        stream = self._streams[current.device]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # A pool lives as long as one of its graphs; the name of one that is gone must not be used again.
        pool: Any = next((one.pool() for one in self._graphs), None)
        if pool is None:
            pool = torch.cuda.graph_pool_handle()
        try:
            with (
                torch.cuda.stream(current),  # which a recording that fails does not go back to
                torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
            ):
                result = run()
        except RuntimeError:
            _leave_pool(current.device, pool)
            raise
        self._graphs.add(graph)
        return graph.replay, result

    def wait_for_last(self) -> None:
        """Waits on the device, not here."""
        if self._last is not None:
            torch.cuda.current_stream().wait_event(self._last)

    def mark_last(self) -> None:
        """Records an event."""
        self._last = torch.cuda.Event()
        self._last.record()

    def finish(self) -> None:
        """Waits for the event."""
        if self._last is not None:
            self._last.synchronize()


def _leave_pool(device: torch.device, pool: Any) -> None:
    """Has memory come from where it came before a recording that failed, which PyTorch does from 2.12 on."""
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # PyTorch 2.8, and before
    end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    if end is not None:
        with suppress(RuntimeError):  # where it does so already
            end(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)


class _Parts:
    """The modules of a model without itself, of which they keep nothing alive, and where they keep what they have."""

    def __init__(self, model: nn.Module | None = None) -> None:
        modules = [] if model is None else list(model.modules())
        self._modules = modules[1:]
        self._held: list[dict[str, Any]] = [held for m in modules for held in (m._parameters, m._buffers, m._modules)]
        self._holding = [held for held in self._held if held]
        self._hooks = [vars(m)[name] for m in modules for name in HOOKS]
        self._own = list(map(vars, self._modules))

    def state(self, model: nn.Module) -> list[Any]:
        """The classes of the modules that were there, and what they hold: parameters, buffers and modules."""
        return [type(model), *map(type, self._modules), *chain.from_iterable(map(dict.values, self._holding))]

    def sizes(self) -> list[int]:
        """How much each of them holds."""
        return list(map(len, self._held))

    def are_watched(self, model: nn.Module) -> bool:
        """Whether a hook runs, or a function in a module's place, or a part is in training mode."""
        return (
            any(self._hooks)
            or any(map(_IS_TRAINING, self._modules))
            or _call_others([vars(model), *self._own])
            or is_watched()
        )


_IS_TRAINING = operator.attrgetter("training")


def _call_others(modules: list[dict[str, Any]]) -> bool:
    """Whether something that others put there is called instead of what a module's class says, by its attributes."""
    return any("forward" in own or "_call_impl" in own or "encode" in own or "decode" in own for own in modules)


class _Recording(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], None]
    result: Any


class Recordings:
    """What was recorded of one model, which is given to each call, so that nothing here keeps it alive.

    A copy of it, or one that was pickled, is empty.

    Args:
        max_shapes: see `with_graphs`.
        recorder: likewise.
    """

    def __init__(self, max_shapes: int, recorder: Recorder | None = None) -> None:
        if max_shapes < 0:
            raise ValueError(f"max_shapes ({max_shapes}) must be at least 0; 0 turns graphs off")
        self.max_shapes = max_shapes
        self._recorder: Recorder = CudaRecorder() if recorder is None else recorder
        self._lock = threading.Lock()
        self._recordings: dict[Hashable, _Recording | None] = {}  # None: cannot be recorded
        self._parts = _Parts()
        self._sizes: list[int] = []
        self._state: list[Any] = []
        self._weights: list[Tensor] = []
        self._addresses: list[int] = []
        self._are_there = False  # all weights, on the device

    def __reduce__(self) -> Any:
        """Keeps recordings out of copies."""
        return type(self), (self.max_shapes,)

    def __len__(self) -> int:
        """How many shapes are kept."""
        return sum(recording is not None for recording in self._recordings.values())

    def call(
        self, model: nn.Module, run: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Result:
        """Runs by a recording, or else as it is.

        Args:
            model: all of whose modules, and no other weights, `run` calls.
            run: on these arguments.
        """
        if model.training and self._recordings:  # their memory is needed
            self.forget()
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        device = self._device_of(model, tensors)
        key = None if device is None else _key(leaves, structure, device.type)
        if device is None or key is None:
            return run(*args, **kwargs)
        with self._lock, self._recorder.on(device):
            if self._is_unwatched(model, device):
                self._recorder.wait_for_last()
                if key not in self._recordings and len(self._recordings) < self.max_shapes:
                    self._recordings[key] = None
                    self._recordings[key] = self._record(model, run, leaves, structure, device)
                recording = self._recordings.get(key)
                if recording is not None:
                    for kept, given in zip(recording.inputs, tensors, strict=True):
                        kept.copy_(given, non_blocking=True)
                    recording.replay()
                    result: Result = tree_map_only(Tensor, torch.clone, recording.result)
                    self._recorder.mark_last()
                    return result
        return run(*args, **kwargs)

    def forget(self) -> None:
        """Drops all recordings, and their memory with them."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._recordings:
            self._recorder.finish()  # a replay may still read what goes with them
            self._recordings.clear()

    def _device_of(self, model: nn.Module, tensors: list[Tensor]) -> torch.device | None:
        """Where a call with these inputs can be recorded; None for nowhere."""
        if not (self.max_shapes and tensors) or model.training or getattr(_here, "records", False):
            return None
        device = tensors[0].device
        if not computes_values_only() or not self._recorder.serves(device):
            return None
        return device if all(type(x) in (Tensor, nn.Parameter) and x.device == device for x in tensors) else None

    def _is_unwatched(self, model: nn.Module, device: torch.device) -> bool:
        """Whether nothing acts on the call but the modules; drops recordings of others, or of other weights, before.

        A replay waits for this, so that it is a few passes over flat lists.
        """
        is_same = self._parts.sizes() == self._sizes and all(map(operator.is_, self._parts.state(model), self._state))
        if not is_same or not self._state:
            self._parts = _Parts(model)
            self._sizes, self._state = self._parts.sizes(), self._parts.state(model)
            self._weights = [x for x in self._state if isinstance(x, Tensor)]
            self._addresses = []
        addresses = list(map(Tensor.data_ptr, self._weights))
        if addresses != self._addresses:
            self._drop()
            self._addresses = addresses
            self._are_there = all(weight.device == device for weight in self._weights)
        return self._are_there and not self._parts.are_watched(model)

    def _record(
        self, model: nn.Module, run: Callable[..., Any], leaves: list[Any], structure: TreeSpec, device: torch.device
    ) -> _Recording | None:
        kept = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(kept, structure)
        with _recording(device):
            try:
                with _nothing_waits():  # a recording that fails leaves PyTorch's random numbers unusable
                    result = run(*args, **kwargs)
            except RuntimeError:  # its own or of what waits; the call fails again, or runs, without being recorded
                return None
            if not all(isinstance(leaf, (Tensor, *_CONSTANTS)) for leaf in tree_leaves(result)):
                return None
            del result
            try:
                replay, result = self._recorder.record(lambda: run(*args, **kwargs))
            except RuntimeError as error:
                message = f"a call of {type(model).__name__} runs without a CUDA graph, which could not be recorded"
                warnings.warn(f"{message}: {error}", stacklevel=5)
                return None
        return _Recording([leaf for leaf in kept if isinstance(leaf, Tensor)], replay, result)


class GraphedCall(nn.Module):
    """Base of modules whose calls go through the recordings that they have, if any."""

    def _compiled_call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module; PyTorch looks for it here when one is called, before hooks."""
        recordings = recordings_of(self)
        if recordings is None or torch.compiler.is_compiling():
            return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
        return recordings.call(self, self._call_impl, args, kwargs)


def recordings_of(module: nn.Module) -> Recordings | None:
    """The recordings that a module's calls go through."""
    found: Recordings | None = vars(module).get("_recordings")
    return found


def give_recordings(module: nn.Module, recordings: Recordings | None) -> None:
    """Has a module's calls go through recordings, or none; for a module that is a `GraphedCall`."""
    vars(module).pop("_recordings", None)
    if recordings is not None and isinstance(module, GraphedCall):
        vars(module)["_recordings"] = recordings


class WithGraphs(Generic[Result]):
    """A model's call by recordings; see `with_graphs`.

    Attributes:
        model: the model, as it is.
    """

    def __init__(self, model: Callable[..., Result], recordings: Recordings) -> None:
        self.model = model
        self._recordings = recordings

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Calls the model."""
        if torch.compiler.is_compiling() or not isinstance(self.model, nn.Module):
            return self.model(*args, **kwargs)
        return self._recordings.call(self.model, self.model, args, kwargs)

    def forget(self) -> None:
        """Drops all recordings, and their memory with them."""
        self._recordings.forget()

    @property
    def num_recordings(self) -> int:
        """How many shapes are kept."""
        return len(self._recordings)


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
    return WithGraphs(model, Recordings(max_shapes, recorder))


@contextmanager
def _recording(device: torch.device) -> Iterator[None]:
    """Within the block, one call is recorded: no other, and none of a part of the model.

    Autocasting keeps no cast weights, as it does otherwise until its block ends: recordings outlive these.
    """
    kind = device.type
    casts: AbstractContextManager[Any] = nullcontext()
    if torch.is_autocast_enabled(kind):
        casts = torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False)
    with _ONE_AT_A_TIME, casts:
        _here.records = True
        try:
            yield
        finally:
            _here.records = False


@contextmanager
def _nothing_waits() -> Iterator[None]:
    """Within the block, what waits for the device raises, and compiled parts run as they are.

    A compiler that meets the mode which looks on leaves such parts alone for good. PyTorch 2.5 has no way to say so,
    and nothing is refused there.
    """
    set_stance: Any = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        yield
        return
    with set_stance("force_eager"), NothingWaits():
        yield


def _key(leaves: list[Any], structure: TreeSpec, kind: str) -> Hashable | None:
    """What a recording depends on besides the model; None where that cannot be told."""
    described: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            described.append((leaf.shape, leaf.dtype))
        elif type(leaf) in _CONSTANTS:
            described.append((type(leaf), leaf))
        else:
            return None
    return (
        tuple(described),
        str(structure),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind),
        _precision_of_products(),
        torch.are_deterministic_algorithms_enabled(),
    )


def _precision_of_products() -> Hashable:
    """How exact float32 products are; whichever of PyTorch's two sets of switches was used, which do not mix."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):  # PyTorch 2.9 and later
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
