"""Ours against perceiver-pytorch on its README's call, with the same weights, one run, taking turns.

    python -m benchmarks.moving_over --threads 2 --repeats 5

Seconds are the least of the repeats: of the clock, and of the processors (of all threads), which other programs on the
machine disturb less. Memory is what a process of its own needs at most above what it holds before the first call.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    # The README's call.
    "readme": {"num_freq_bands": 6, "max_freq": 10.0},
    # The same for pictures as the paper has them: 261 channels for each of 50,176 pixels.
    "imagenet": {"num_freq_bands": 64, "max_freq": 224.0},
}
_README: dict[str, Any] = {
    "depth": 6,
    "input_channels": 3,
    "input_axis": 2,
    "num_latents": 256,
    "latent_dim": 512,
    "cross_heads": 1,
    "latent_heads": 8,
    "cross_dim_head": 64,
    "latent_dim_head": 64,
    "num_classes": 1000,
    "attn_dropout": 0.0,
    "ff_dropout": 0.0,
    "weight_tie_layers": False,
    "self_per_cross_attn": 2,
}
SIDES = ("ours", "theirs")
WORK = ("inference", "training step")


def build(side: str, case: str, size: int) -> tuple[Any, Any]:
    """A side's model, with the same weights on both, and a picture."""
    import torch

    if side == "ours":
        from perceiver_io.compat import perceiver_pytorch as package
    else:
        import perceiver_pytorch as package
    torch.manual_seed(0)
    model = package.Perceiver(**_README, **CASES[case])
    generator = torch.Generator().manual_seed(1)
    return model, torch.randn(1, size, size, 3, generator=generator)


def task(model: Any, picture: Any, work: str) -> Callable[[], Any]:
    """What is timed: logits, or the gradients of their mean square and a step of AdamW."""
    import torch

    if work == "inference":

        def infer() -> Any:
            with torch.inference_mode():
                return model.eval()(picture)

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def train() -> None:
        optimizer.zero_grad()
        model.train()(picture).square().mean().backward()
        optimizer.step()

    return train


def measure_memory(side: str, case: str, work: str, size: int, threads: int) -> float:
    """GB that a new process needs at most above what it holds before the first call."""
    command = [sys.executable, "-m", "benchmarks.moving_over", "--threads", str(threads), "--size", str(size)]
    command += ["--memory-of", side, case, work]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e9


def own_memory(side: str, case: str, work: str, size: int) -> int:
    """Bytes that this process comes to need."""
    run = task(*build(side, case, size), work)
    before = _from_status("VmRSS")
    for _ in range(2):
        run()
    return _from_status("VmHWM") - before


def _from_status(field: str) -> int:
    """Bytes of memory; not by getrusage, whose highest is that of the process that this one was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def compare(case: str, work: str, size: int, repeats: int, threads: int) -> str:
    """A line of the table."""
    import torch

    (ours, picture), (theirs, _) = (build(side, case, size) for side in SIDES)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs.eval()(picture)
        difference = float((ours.eval()(picture) - expected).abs().max() / expected.std())
    runs = [task(ours, picture, work), task(theirs, picture, work)]
    wall: list[list[float]] = [[], []]
    busy: list[list[float]] = [[], []]
    for repeat in range(repeats + 1):
        for side, run in enumerate(runs):
            start, busy_start = time.perf_counter(), time.process_time()
            run()
            if repeat:  # the first warms up
                wall[side].append(time.perf_counter() - start)
                busy[side].append(time.process_time() - busy_start)
    memory = [measure_memory(side, case, work, size, threads) for side in SIDES]
    cells = [case, work, f"{difference:.1e}"]
    for ours_value, theirs_value in (map(min, wall), map(min, busy), memory):
        cells.append(f"{ours_value:.2f} / {theirs_value:.2f} ({theirs_value / ours_value:.2f}×)")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="height and width of the picture")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--memory-of", nargs=3, metavar=("SIDE", "CASE", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(own_memory(*arguments.memory_of, arguments.size))
        return
    print("| case | work | difference / std | seconds: ours / theirs | processor seconds | GB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for case in arguments.cases:
        for work in WORK:
            print(compare(case, work, arguments.size, arguments.repeats, arguments.threads), flush=True)


if __name__ == "__main__":
    main()
