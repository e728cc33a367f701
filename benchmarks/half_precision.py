"""Our models in bfloat16 beside themselves in float32 on a CPU, with the same random weights, in one process.

    python -m benchmarks.half_precision --threads 1 --turns 3

The two take turns. Seconds are the processor's, of all threads, which other programs on the machine disturb less than
the clock's; with one thread on a quiet machine both are the same. Of the turns the median counts, and of ratios that of
neighbouring turns. Differences are in standard deviations of the float32 output; optical flow has none, which answers
zeros with the weights that it starts with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rows import ROWS, Case, make_case, make_inputs

DEFAULT_ROWS = ("language-2048", "imagenet-conv", "imagenet-fourier", "imagenet-learned", "video-chunk", "optical-flow")


def compare(case: Case, turns: int) -> str:
    """A line of the table."""
    import torch

    import perceiver_io
    from benchmarks.sides import run_ours

    torch.manual_seed(0)
    models = [perceiver_io.create_model(case.row.preset, **case.overrides).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    perceiver_io.accelerate(models[1], dtype=torch.bfloat16)
    arrays = {name: torch.from_numpy(array) for name, array in make_inputs(case).items()}
    halves = {name: x.bfloat16() if x.is_floating_point() else x for name, x in arrays.items()}
    seconds: list[list[float]] = [[], []]
    outputs: list[Mapping[str, Any]] = [{}, {}]
    with torch.inference_mode():
        for turn in range(turns + 1):
            for side, inputs in enumerate((arrays, halves)):
                start = time.process_time()
                outputs[side] = run_ours(models[side], case, inputs)
                if turn:  # the first warms up
                    seconds[side].append(time.process_time() - start)
    full, half = map(statistics.median, seconds)
    ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
    error = "– | –"
    if all(bool(output.std() > 0) for output in outputs[0].values()):
        errors = [(outputs[1][name].float() - output).abs() / output.std() for name, output in outputs[0].items()]
        largest = max(errors, key=lambda values: float(values.max()))
        error = f"{float(largest.max()):.3f} | {float(largest.mean()):.3f}"
    return f"| {case.row.title} | {full:.3g} s | {half:.3g} s | {ratio:.2f}× | {error} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=DEFAULT_ROWS, metavar="ROW", help=" ".join(ROWS))
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script itself")
    arguments = parser.parse_args(argv)
    if arguments.turns < 1:
        parser.error(f"--turns ({arguments.turns}) must be at least 1")

    import torch

    torch.set_num_threads(arguments.threads)
    print("| model | float32 | bfloat16 | | largest difference | mean |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.rows:
        print(compare(make_case(ROWS[name], arguments.tiny), arguments.turns), flush=True)


if __name__ == "__main__":
    main()
