"""Measures this library on a GPU: parity with the CPU, speed beside transformers, training steps, memory, first calls.

    python -m benchmarks.cuda [--device cuda] [--rows ROW ...] [--budget SECONDS] [--quick]
        [--reference CHECKOUT] [--json FILE] [--markdown FILE]

Random weights of the released sizes, one process (the reference under JAX has its own), medians of a few runs, each
waited for. Sections come in the order of their worth; files are written anew after each cell, what is running when the
budget ends is given up, and what there was no time for is named. `--device cpu --quick` tries the script on models of
no meaning in a minute.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

import perceiver_io
from benchmarks.machine import describe
from benchmarks.rows import ROWS, Case, make_case, make_inputs
from benchmarks.sides import Reference, Transformers
from benchmarks.worker import Worker, available_cores

LARGE = {
    "language-2048": 32,
    "imagenet-fourier": 32,
    "imagenet-learned": 32,
    "imagenet-conv": 32,
    "optical-flow": 4,
    "video-chunk": 8,
    "video-clip": 1,
}
TRAINED = ("imagenet-fourier", "language-2048", "imagenet-learned")
PRECISIONS = ("float32", "tf32", "bfloat16")
_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
_GEMM_SIZE, _QUICK_GEMM_SIZE = 8192, 256
_SECONDS_A_CELL = 0.5
_MOST_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement.

    Attributes:
        section: "inference" or "training".
        side: what was run.
        seconds: median of the runs; None if it failed.
        share: of the peak of matrix products, counted in the least work that does (of training, three times that).
        peak_bytes: allocated on the device at most, weights included; None on CPUs.
        first_call: seconds of the first call, recording and compiling included.
        failure: the error's first line.
    """

    section: str
    row: str
    side: str
    precision: str
    batch: int
    seconds: float | None = None
    share: float | None = None
    peak_bytes: int | None = None
    first_call: float | None = None
    failure: str | None = None


class Device:
    """Where it runs, and its clock."""

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.is_cuda = self.device.type == "cuda"

    def describe(self) -> str:
        """The card's name."""
        return torch.cuda.get_device_name(self.device) if self.is_cuda else "CPU"

    def once(self, run: Callable[[], Any]) -> float:
        """Seconds of one run, the host's part included."""
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def measure(self, run: Callable[[], Any]) -> float:
        """The median of some runs in seconds, after one that does not count."""
        run()
        seconds: list[float] = []
        while len(seconds) < 3 or (sum(seconds) < _SECONDS_A_CELL and len(seconds) < _MOST_RUNS):
            seconds.append(self.once(run))
        return statistics.median(seconds)

    def wait(self) -> None:
        """Waits until all is computed."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def peak_bytes(self) -> int | None:
        """The most that was allocated since `forget`."""
        return torch.cuda.max_memory_allocated(self.device) if self.is_cuda else None

    def forget(self) -> None:
        """Frees what nobody uses, and starts the count anew."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Within the block, float32 products are what a precision says: torch's own switch."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class TimeUp(BaseException):
    """The budget is spent; of a kind that no side catches."""


class Budget:
    """Seconds that may be spent, and what there was no time for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out: list[str] = []

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - time.monotonic())

    def allows(self, what: str) -> bool:
        """Whether there is time; notes what there is none for."""
        if self.left:
            return True
        self.left_out.append(what)
        return False

    @contextmanager
    def interrupting(self, what: str) -> Iterator[None]:
        """Gives up what the block does when the time is up, and notes it."""

        def stop(*_: Any) -> None:
            raise TimeUp

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 1e-3))
        try:
            yield
        except TimeUp:
            self.left_out.append(what)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Maps command line to tables on standard output, and exit status: 1 if our own side failed anywhere."""
    arguments = _parser().parse_args(argv)
    device, budget = Device(arguments.device), Budget(arguments.budget)
    torch.manual_seed(0)
    cases = {name: make_case(ROWS[name], arguments.quick) for name in arguments.rows}
    peaks = measure_peaks(device, _QUICK_GEMM_SIZE if arguments.quick else _GEMM_SIZE)
    parity: dict[str, dict[str, float]] = {}
    cells: list[Cell] = []
    description = {**describe(), "device": device.describe(), "cuda": str(torch.version.cuda)}
    command = _command(arguments)
    for name in cases:
        if name != "video-clip" and budget.allows(f"parity of {name}"):  # the clip's model is the chunk's
            with budget.interrupting(f"parity of {name}"):
                parity[name] = measure_parity(cases[name], device)
    for cell in planned(cases, device, arguments):
        what = f"{cell.section} {cell.row}, {cell.side}, {cell.precision}, batch {cell.batch}"
        if not budget.allows(what):
            continue
        with budget.interrupting(what):
            measured = _measured(cell, cases[cell.row], device, budget, arguments.reference)
            cells.append(_with_share(measured, peaks, arguments.quick))
            print(f"{what}: {_figure(cells[-1])}", file=sys.stderr, flush=True)
        _write(arguments, description, command, peaks, parity, cells, budget.left_out)
    print(_write(arguments, description, command, peaks, parity, cells, budget.left_out))
    return int(any(cell.failure and cell.side.startswith("ours") for cell in cells))


def _with_share(cell: Cell, peaks: dict[str, float], quick: bool) -> Cell:
    peak, gflop = peaks.get(cell.precision), None if quick else ROWS[cell.row].gflop
    if not (cell.seconds and peak and gflop):
        return cell
    work = gflop * 1e9 * cell.batch * (3 if cell.section == "training" else 1)
    return replace(cell, share=work / cell.seconds / peak)


def _write(
    arguments: argparse.Namespace,
    description: dict[str, str],
    command: str,
    peaks: dict[str, float],
    parity: dict[str, dict[str, float]],
    cells: Sequence[Cell],
    left_out: Sequence[str],
) -> str:
    """Writes what there is so far to the files that were asked for; returns the Markdown."""
    markdown = report(description, command, peaks, parity, cells, left_out)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown, encoding="utf-8")
    if arguments.json is not None:
        record = {
            "machine": description,
            "peak_flops": peaks,
            "parity": parity,
            "cells": [asdict(cell) for cell in cells],
            "left_out": left_out,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return markdown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …, or cpu (default: cuda)")
    parser.add_argument("--rows", nargs="+", choices=list(LARGE), default=list(LARGE), metavar="ROW")
    parser.add_argument("--budget", type=float, default=330, metavar="SECONDS", help="default: 330")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try this script")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help="of google-deepmind/deepmind-research; needs JAX for the device, and Haiku (default: without)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every figure there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="writes the tables there")
    return parser


def _command(arguments: argparse.Namespace) -> str:
    words = ["python -m benchmarks.cuda", f"--device {arguments.device}"]
    if arguments.rows != list(LARGE):
        words.append(f"--rows {' '.join(arguments.rows)}")
    words += ["--reference CHECKOUT"] if arguments.reference is not None else []
    return " ".join([*words, f"--budget {arguments.budget:g}", *(["--quick"] if arguments.quick else [])])


def measure_peaks(device: Device, size: int) -> dict[str, float]:
    """Maps precisions to the operations a second of a product of two squares."""
    peaks = {}
    for precision in PRECISIONS:
        if precision == "tf32" and not device.is_cuda:
            continue
        left, right = (torch.randn(size, size, device=device.device, dtype=_DTYPES[precision]) for _ in range(2))
        with products_in(precision):
            peaks[precision] = 2 * size**3 / device.measure(lambda left=left, right=right: left @ right)
    return peaks


def measure_parity(case: Case, device: Device) -> dict[str, float]:
    """Maps precisions to the largest difference from the CPU's float32 in deviations of the output."""
    errors = {}
    model = build(case)
    with torch.inference_mode():
        expected = [output.double() for output in tree_leaves(call(model, case, inputs_of(case, 1)))]
        for precision in ("float32", "bfloat16"):
            dtype = _DTYPES[precision]
            twin = perceiver_io.accelerate(model, dtype=dtype).to(device.device)
            with products_in(precision):
                given = tree_leaves(call(twin, case, inputs_of(case, 1, device.device, dtype)))
            errors[precision] = max(
                float((ours.double().cpu() - theirs).abs().max() / theirs.std())
                for ours, theirs in zip(given, expected, strict=True)
            )
    del model, twin
    device.forget()
    return errors


def planned(cases: dict[str, Case], device: Device, arguments: argparse.Namespace) -> Iterator[Cell]:
    """All that is to be measured, in the order of its worth."""
    exact = [
        precision for precision in PRECISIONS if precision != "bfloat16" and (precision != "tf32" or device.is_cuda)
    ]
    ours = ("ours, eager", "ours")
    has_transformers = not arguments.quick and importlib.util.find_spec("transformers") is not None
    yield from _inference(cases, ours, ["bfloat16"])
    if has_transformers:
        yield from _inference(cases, ("transformers",), ["bfloat16"])
    yield from _training(cases, ["ours, plain", "ours", *(["transformers"] if has_transformers else [])])
    yield from _inference(cases, ours, exact)
    if arguments.reference is not None:
        yield from _inference(cases, ("reference",), PRECISIONS)
    if has_transformers:
        yield from _inference(cases, ("transformers",), ["float32"])
    if not arguments.quick or device.is_cuda:
        yield from _training(cases, ["ours, graphs", "ours, compiled"])
        yield from _inference(cases, ("ours, compiled",), ["bfloat16"])


def _inference(cases: dict[str, Case], sides: Sequence[str], precisions: Sequence[str]) -> Iterator[Cell]:
    for name, case in cases.items():
        for precision in precisions:
            for batch in sorted({1, 2 if case.overrides else LARGE[name]} if LARGE[name] > 1 else {1}):
                for side in sides:
                    yield Cell(section="inference", row=name, side=side, precision=precision, batch=batch)


def _training(cases: dict[str, Case], sides: Sequence[str]) -> Iterator[Cell]:
    for name in TRAINED:
        for side in sides if name in cases else ():
            batch = 2 if cases[name].overrides else LARGE[name]
            yield Cell(section="training", row=name, side=side, precision="bfloat16", batch=batch)


def _measured(cell: Cell, case: Case, device: Device, budget: Budget, checkout: Path | None) -> Cell:
    """Prepares what a cell names, and times its first call and some more."""
    device.forget()
    try:
        if cell.side == "reference":
            return _reference(cell, case, device, budget, checkout)
        is_inference = cell.section == "inference"
        run = (_inference_run if is_inference else _training_run)(cell, case, device)
        with products_in(cell.precision), torch.inference_mode() if is_inference else nullcontext():
            first = device.once(run)
            seconds = device.measure(run)
        return replace(cell, seconds=seconds, first_call=first, peak_bytes=device.peak_bytes())
    except Exception as error:  # whatever a side raises is a result
        lines = str(error).splitlines()
        return replace(cell, failure=f"{type(error).__name__}: {lines[0] if lines else ''}")


def _reference(cell: Cell, case: Case, device: Device, budget: Budget, checkout: Path | None) -> Cell:
    """Runs DeepMind's code in a process of its own, which ends with the budget; building counts to its first call."""
    platform = "cuda" if device.is_cuda else "cpu"
    side = Reference(case=case, checkout=checkout, platform=platform, precision=cell.precision, batch=cell.batch)
    if case.row.name == "video-clip":
        return replace(cell, failure=f"{case.video_chunks} calls of one chunk each, which encode anew")
    if reason := side.why_not():
        return replace(cell, failure=reason)
    with Worker(side, len(available_cores()), timeout=max(1.0, budget.left)) as worker:
        first = worker.prepare().seconds
        seconds: list[float] = []
        while len(seconds) < 3 or (sum(seconds) < _SECONDS_A_CELL and len(seconds) < _MOST_RUNS):
            seconds.append(worker.run())
    return replace(cell, seconds=statistics.median(seconds), first_call=first)


def _inference_run(cell: Cell, case: Case, device: Device) -> Callable[[], Any]:
    dtype = _DTYPES[cell.precision]
    if cell.side == "transformers":
        model, arguments = _transformers(case, cell.batch, device.device)
        model.to(dtype)
        arguments = _cast(arguments, dtype)
        return lambda: model(**arguments)
    model = perceiver_io.accelerate(
        build(case), dtype=dtype, compile_blocks="compiled" in cell.side, max_graphs=0 if "eager" in cell.side else 8
    ).to(device.device)
    inputs = inputs_of(case, cell.batch, device.device, dtype)
    return lambda: call(model, case, inputs)


def _training_run(cell: Cell, case: Case, device: Device) -> Callable[[], Any]:
    if cell.side == "transformers":
        model, arguments = _transformers(case, cell.batch, device.device)
        forward = lambda: model(**arguments).logits  # noqa: E731
    else:
        model = build(case)
        if "plain" in cell.side:
            perceiver_io.undo_accelerate(model)
        else:
            perceiver_io.accelerate(model, compile_blocks="compiled" in cell.side)
        model.to(device.device)
        inputs = inputs_of(case, cell.batch, device.device)
        forward = lambda: call(model, case, inputs)  # noqa: E731
    model.train()
    is_recorded = "graphs" in cell.side and device.is_cuda
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.is_cuda, capturable=is_recorded)

    def step() -> None:
        with torch.autocast(device.device.type, torch.bfloat16, cache_enabled=not is_recorded):
            logits: Tensor = forward()
        rows = logits.float().flatten(0, -2)
        F.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long, device=rows.device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return _recorded(step) if is_recorded else step


def _recorded(step: Callable[[], None]) -> Callable[[], None]:
    """Maps a step of training, on fixed inputs, to one CUDA graph of it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def build(case: Case) -> Any:
    """A model of ours, on the CPU, no layer of which starts from zeros, as flow's last one does."""
    model = perceiver_io.create_model(case.row.preset, **case.overrides).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def inputs_of(
    case: Case, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The inputs of a case, as often as a batch has examples."""
    tensors = {name: torch.from_numpy(array).to(device) for name, array in make_inputs(case).items()}
    repeated = {
        name: x if name.endswith("_points") else x.repeat(batch, *[1] * (x.ndim - 1)) for name, x in tensors.items()
    }
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in repeated.items()}


def call(model: Any, case: Case, inputs: dict[str, Tensor]) -> Any:
    """Calls a model of ours."""
    match case.row.preset:
        case "language":
            return model(inputs["tokens"])
        case "optical-flow":
            return model(*inputs["frames"].unbind(1))
        case "video-autoencoding":
            points = {name: inputs[f"{name}_points"] for name in ("image", "audio")}
            return model(inputs["video"], inputs["audio"], points=points if case.row.decodes == "chunk" else None)
        case _:
            return model(inputs["images"])


def _transformers(case: Case, batch: int, device: torch.device) -> tuple[Any, dict[str, Any]]:
    if case.row.name == "video-clip":
        raise ValueError(f"{case.video_chunks} calls of one chunk each, which encode anew")
    model, arguments = Transformers(case=case).build()
    points = arguments.pop("subsampled_output_points", None)
    arguments = tree_map_only(Tensor, lambda x: x.to(device).repeat(batch, *[1] * (x.ndim - 1)), arguments)
    if points is not None:
        arguments["subsampled_output_points"] = tree_map_only(Tensor, lambda x: x.to(device), points)
    return model.to(device), arguments


def _cast(arguments: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, arguments)


def report(
    description: dict[str, str],
    command: str,
    peaks: dict[str, float],
    parity: dict[str, dict[str, float]],
    cells: Sequence[Cell],
    left_out: Sequence[str],
) -> str:
    """Maps what was measured to Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in description.items() if name not in ("processor", "device"))
    parts = [f"{description['device']}; {description['processor']}.\n\n{facts}.\n\n`{command}`\n"]
    speeds = ", ".join(f"{precision} {peak / 1e12:.3g}" for precision, peak in peaks.items())
    parts.append(f"Matrix products, TFLOP/s: {speeds}.\n")
    parts.append(
        "Largest difference from the CPU's float32 in standard deviations of the output.\n\n"
        + _table(
            ["", "float32", "bfloat16"],
            [[ROWS[name].title, *(f"{error:.1e}" for error in errors.values())] for name, errors in parity.items()],
        )
    )
    for section, title in (
        ("inference", "Inference"),
        ("training", "Training steps under bfloat16 autocast, AdamW; the share counts three times the forward pass"),
    ):
        found = [cell for cell in cells if cell.section == section]
        if found:
            parts.append(
                f"{title}: milliseconds (share of the products' peak, counted in the least work); peak GB; first call "
                "in seconds.\n\n" + _section_table(found)
            )
    notes = [
        f"* {cell.row}, {cell.side}, {cell.precision}, batch {cell.batch}: {cell.failure}"
        for cell in cells
        if cell.failure
    ]
    notes += [f"* no time left: {what}" for what in left_out]
    return "\n".join([*parts, *(["\n".join(notes) + "\n"] if notes else [])])


def _section_table(cells: Sequence[Cell]) -> str:
    sides = list(dict.fromkeys(cell.side for cell in cells))
    lines = list(dict.fromkeys((cell.row, cell.precision, cell.batch) for cell in cells))
    by_place = {(cell.row, cell.precision, cell.batch, cell.side): cell for cell in cells}
    return _table(
        ["", "precision", "batch", *sides],
        [
            [
                ROWS[row].title,
                precision,
                str(batch),
                *(_figure(by_place.get((row, precision, batch, s))) for s in sides),
            ]
            for row, precision, batch in lines
        ],
    )


def _figure(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.seconds is None:
        return "fails"
    share = "" if cell.share is None else f" ({cell.share:.0%})"
    memory = "" if cell.peak_bytes is None else f"; {cell.peak_bytes / 1e9:.2f} GB"
    return f"{1e3 * cell.seconds:.3g}{share}{memory}; {cell.first_call or 0:.2g} s"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
