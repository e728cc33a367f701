"""The tasks of the benchmark of GPUs, done on the device, in a process that may not survive them."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

import perceiver_io
from benchmarks.cuda_tasks import Cell, Parity, Peak, Task
from benchmarks.rows import ROWS, Case, make_case, make_inputs
from benchmarks.sides import Transformers, run_ours
from benchmarks.worker import median_of_runs
from perceiver_io.fast.graphs import recordings_of

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
_GEMM_SIZE, _QUICK_GEMM_SIZE = 8192, 256
_WARM_UPS = 3


class OnDevice:
    """Does tasks, one after the other. Models are built once, on the CPU, and each cell has a copy.

    Args:
        name: of the device.
        is_quick: whether models are small.
    """

    def __init__(self, name: str, is_quick: bool) -> None:
        self._device = torch.device(name)
        self._is_cuda = self._device.type == "cuda"
        self._is_quick = is_quick
        self._built: dict[str, Any] = {}
        self._expected: dict[str, list[Tensor]] = {}

    def describe(self) -> dict[str, str]:
        """The card's name, and its library's version."""
        name = torch.cuda.get_device_name(self._device) if self._is_cuda else "CPU"
        return {"device": name, "cuda": str(torch.version.cuda)}

    def forget(self) -> None:
        """Frees what nobody uses, and starts counts anew; raises on a device that is of no use any more."""
        torch.compiler.reset()  # programs keep models; and there are eight at most of one function, for all models
        counters.clear()
        gc.collect()
        if self._is_cuda:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def do(self, task: Task, seconds: float) -> Any:
        """Maps a task to its figure: a number, or the cell with all of its own.

        Args:
            seconds: that runs of a cell take together, so that there are three at least.
        """
        self.forget()
        torch.manual_seed(0)
        # Torch's older switches: these may be read by the newer names, too, and by compilers.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = task.precision == "tf32"
        match task:
            case Peak():
                return self._peak(task.precision, seconds)
            case Parity():
                return self._parity(make_case(ROWS[task.row], self._is_quick), task.precision)
            case Cell():
                return self._cell(task, make_case(ROWS[task.row], self._is_quick), seconds)

    def _once(self, run: Callable[[], Any]) -> float:
        """Seconds of one run, the host's part included."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _median(self, run: Callable[[], Any], seconds: float) -> float:
        """Seconds of a run, after one that does not count."""
        run()
        return median_of_runs(lambda: self._once(run), seconds)

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize(self._device)

    def _reserved(self) -> int:
        """Bytes of the device that are in use, idle graphs' included."""
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._device)

    def _peak(self, precision: str, seconds: float) -> float:
        size = _QUICK_GEMM_SIZE if self._is_quick else _GEMM_SIZE
        left, right = (torch.randn(size, size, device=self._device, dtype=DTYPES[precision]) for _ in range(2))
        return 2 * size**3 / self._median(lambda: left @ right, seconds)

    def _parity(self, case: Case, precision: str) -> float:
        dtype = DTYPES[precision]
        model, twin = self._model(case), perceiver_io.accelerate(self._model(case).to(self._device), dtype=dtype)
        with torch.inference_mode():
            if case.row.name not in self._expected:
                outputs = tree_leaves(run_ours(model, case, inputs_of(case, 1)))
                self._expected[case.row.name] = [output.double() for output in outputs]
            given = tree_leaves(run_ours(twin, case, inputs_of(case, 1, self._device, dtype)))
        return max(
            float((ours.double().cpu() - theirs).abs().max() / theirs.std())
            for ours, theirs in zip(given, self._expected[case.row.name], strict=True)
        )

    def _cell(self, cell: Cell, case: Case, seconds: float) -> Cell:
        is_inference = cell.section == "inference"
        model, forward = (self._transformers if cell.side == "transformers" else self._ours)(cell, case)
        run = forward if is_inference else training_step(model, forward, is_recorded="graphs" in cell.side)
        before = self._reserved() if self._is_cuda else 0
        with torch.inference_mode() if is_inference else nullcontext():
            cell = replace(cell, first_call=self._once(run), seconds=self._median(run, seconds))
        if "compiled" in cell.side:
            cell = replace(cell, programs=counters["stats"]["unique_graphs"])
        if self._is_cuda:
            if is_inference and cell.side in ("ours", "ours, compiled"):
                cell = replace(cell, recordings=sum(len(recordings_of(module) or ()) for module in model.modules()))
            peak = torch.cuda.max_memory_allocated(self._device)
            cell = replace(cell, peak_bytes=peak, kept_bytes=self._reserved() - before)
        return cell

    def _ours(self, cell: Cell, case: Case) -> tuple[Any, Callable[[], Any]]:
        """The model of a cell on the device, and a call of it."""
        dtype = DTYPES[cell.precision] if cell.section == "inference" else torch.float32
        model = self._model(case).to(self._device)
        if "plain" in cell.side:
            perceiver_io.undo_accelerate(model)
        else:
            is_compiled, is_eager = ("compiled" in cell.side), ("eager" in cell.side)
            perceiver_io.accelerate(model, dtype=dtype, compile_blocks=is_compiled, max_graphs=0 if is_eager else 8)
        inputs = inputs_of(case, cell.batch, self._device, dtype)
        return model, lambda: run_ours(model, case, inputs)

    def _transformers(self, cell: Cell, case: Case) -> tuple[Any, Callable[[], Any]]:
        dtype = DTYPES[cell.precision] if cell.section == "inference" else torch.float32
        name = f"transformers {case.row.name}"
        if name not in self._built:
            self._built[name] = Transformers(case=case).build()
        model, arguments = self._built[name]
        model = copy.deepcopy(model).to(self._device, dtype)
        points = tree_map_only(Tensor, lambda x: x.to(self._device), arguments.get("subsampled_output_points"))
        arguments = tree_map_only(Tensor, lambda x: _repeated(x.to(self._device), cell.batch, dtype), arguments)
        if points is not None:  # the same for all examples
            arguments["subsampled_output_points"] = points
        return model, lambda: {"logits": model(**arguments).logits}

    def _model(self, case: Case) -> Any:
        """A copy, on the CPU, of a case's model, no layer of which starts from zeros, as flow's last one does."""
        preset = case.row.preset
        if preset not in self._built:
            model = perceiver_io.create_model(preset, **case.overrides).eval()
            for parameter in model.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
            self._built[preset] = model
        return copy.deepcopy(self._built[preset])


def training_step(model: Any, forward: Callable[[], Any], is_recorded: bool) -> Callable[[], None]:
    """A step on fixed inputs; `is_recorded`: by one CUDA graph, which its first call makes."""
    model.train()
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type == "cuda", capturable=is_recorded)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=not is_recorded):
            logits = forward()["logits"]
        rows = logits.float().flatten(0, -2)
        F.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long, device=rows.device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return _Recorded(step) if is_recorded else step


class _Recorded:
    """A step of training as one CUDA graph."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Replays it, recorded before if it is not."""
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        return graph


def inputs_of(
    case: Case, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The inputs of a case, as often as a batch has examples."""
    tensors = {name: torch.from_numpy(array).to(device) for name, array in make_inputs(case).items()}
    return {name: x if name.endswith("_points") else _repeated(x, batch, dtype) for name, x in tensors.items()}


def _repeated(x: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    x = x.repeat(batch, *[1] * (x.ndim - 1))
    return x.to(dtype) if x.is_floating_point() else x
