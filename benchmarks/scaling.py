"""How our cost grows: one size after the other is changed on a Perceiver IO of moderate size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.worker import Memory, Prepared, Worker

INPUT_CHANNELS = 256
OUTPUT_CHANNELS = 64
LATENT_CHANNELS = 512
NUM_LAYERS = 8
QUERY_BANDS = 64


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One point, and a worker's task (see `worker.Task`)."""

    inputs: int = 10_000
    outputs: int = 1_000
    batch: int = 1
    latents: int = 256

    def load(self) -> None:
        """Imports the library."""
        import perceiver_io  # noqa: F401

    def prepare(self) -> Prepared:
        """Builds the model."""
        import torch

        import perceiver_io
        from perceiver_io.position_encoding import FourierPositionEncoding
        from perceiver_io.queries import PositionQuery

        query = PositionQuery(
            FourierPositionEncoding((self.outputs,), num_bands=QUERY_BANDS, max_resolution=(self.outputs,))
        )
        model: Any = perceiver_io.PerceiverIO(
            perceiver_io.PerceiverEncoder(
                INPUT_CHANNELS,
                num_latents=self.latents,
                num_latent_channels=LATENT_CHANNELS,
                num_self_attends_per_block=NUM_LAYERS,
                num_blocks=1,
            ),
            perceiver_io.PerceiverDecoder(query.num_channels, LATENT_CHANNELS, output_channels=OUTPUT_CHANNELS),
            output_query=query,
        ).eval()
        perceiver_io.accelerate(model)
        tokens = torch.randn(self.batch, self.inputs, INPUT_CHANNELS)

        def run() -> Mapping[str, Any]:
            with torch.inference_mode():
                return {"outputs": model(tokens)}

        return Prepared(run=run)


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one point of the table took."""

    axis: str
    sizes: Sizes
    seconds: tuple[float, ...]
    memory: Memory

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


GRID: dict[str, tuple[int, ...]] = {
    "inputs": (1_000, 3_000, 10_000, 30_000, 100_000, 200_000),
    "outputs": (1, 100, 1_000, 10_000, 100_000),
    "batch": (1, 2, 4, 8),
    "latents": (64, 128, 256, 512, 1_024),
}
TINY_GRID: dict[str, tuple[int, ...]] = {"inputs": (100,)}


def measure_scaling(grid: Mapping[str, tuple[int, ...]], repeats: int, threads: int) -> Iterator[Point]:
    """Measures every point of the grid in a process of its own; the other sizes are the defaults of `Sizes`.

    Raises:
        TaskError: if our own model fails.
    """
    for axis, values in grid.items():
        for value in values:
            sizes = replace(Sizes(), **{axis: value})
            with Worker(sizes, threads) as worker:
                worker.prepare()
                seconds = tuple(worker.run() for _ in range(repeats))
                yield Point(axis=axis, sizes=sizes, seconds=seconds, memory=worker.memory())


def scaling_table(points: list[Point]) -> str:
    """Maps points to Markdown."""
    base = ", ".join(f"{name} {size:,}" for name, size in asdict(Sizes()).items())
    lines = [
        f"Ours, {NUM_LAYERS} layers of {LATENT_CHANNELS} channels; unless the row says otherwise {base}.",
        "",
        "| changed | to | seconds | per unit, µs | peak above libraries, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for point in points:
        value = getattr(point.sizes, point.axis)
        above = (point.memory.peak - point.memory.baseline) / 1e6
        lines.append(
            f"| {point.axis} | {value:,} | {point.median:.3f} | {point.median / value * 1e6:,.1f} | {above:,.0f} |"
        )
    return "\n".join(lines) + "\n"
