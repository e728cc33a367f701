"""The machine that figures were measured on: its name, its versions, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.worker import Prepared, TaskError, Worker, available_cores

PACKAGES = ("torch", "jax", "jaxlib", "dm-haiku", "transformers", "perceiver-pytorch", "numpy")
GEMM_KERNELS = ("torch.mm", "torch.ops.mkldnn._linear_pointwise")
_TIMINGS = 10


@dataclass(frozen=True)
class Gemm:
    """The product of two float32 squares with one of torch's kernels."""

    kernel: str
    size: int

    def load(self) -> None:
        """Imports torch."""
        import torch  # noqa: F401

    def prepare(self) -> Prepared:
        """Draws the two matrices."""
        import torch

        left, right = (torch.randn(self.size, self.size) for _ in range(2))

        def run() -> Mapping[str, torch.Tensor]:
            with torch.inference_mode():
                if self.kernel == "torch.mm":
                    return {"product": torch.mm(left, right)}
                # oneDNN; takes the right-hand side as a linear layer has its weight, which costs nothing here.
                return {"product": torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")}

        return Prepared(run=run)


class GemmPeak:
    """The fastest float32 product seen so far, in GFLOP/s; a context manager that holds a worker for each kernel."""

    def __init__(self, threads: int, size: int) -> None:
        self.by_kernel: dict[str, float] = {}
        self._gflop = 2 * size**3 / 1e9
        self._workers = {kernel: Worker(Gemm(kernel, size), threads) for kernel in GEMM_KERNELS}
        for kernel, worker in list(self._workers.items()):
            try:
                worker.prepare()
            except TaskError:  # a torch without oneDNN
                self._workers.pop(kernel).__exit__()

    def __enter__(self) -> GemmPeak:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.__exit__()

    def measure(self) -> None:
        """Times each kernel anew; the best of all times counts, since anything slower was disturbed."""
        for kernel, worker in self._workers.items():
            best = self._gflop / min(worker.run() for _ in range(_TIMINGS))
            self.by_kernel[kernel] = max(best, self.by_kernel.get(kernel, 0.0))

    @property
    def fastest(self) -> tuple[str, float]:
        """Kernel and GFLOP/s."""
        kernel = max(self.by_kernel, key=lambda name: self.by_kernel[name])
        return kernel, self.by_kernel[kernel]


def describe() -> dict[str, str]:
    """Processor, versions and the state of this checkout, for the head of a table."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": f"{_processor()}, {len(available_cores())} cores",
        "load before": f"{load:.1f}",
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "perceiver_io": _commit(),
    }


def busy_core_seconds() -> float | None:
    """Time that the cores of this machine have worked since it started, summed; None where the kernel does not say."""
    path = Path("/proc/stat")
    if not path.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, path.read_text(encoding="ascii").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", platform.processor() or platform.machine())
    # A virtual machine may hide the name; family and model tell which core it is.
    family, model = fields.get("cpu family"), fields.get("model")
    return f"{name} (family {family}, model {model})" if family else name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    root = Path(__file__).parents[1]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"
    return described.stdout.strip()
