"""Ours against krasserm's cached generation, with the same random weights, one run, taking turns.

    git clone --depth 1 https://github.com/krasserm/perceiver-io CHECKOUT
    python -m benchmarks.generation --krasserm CHECKOUT --threads 1

The model is that of his training example on WikiText: 30.6M parameters, bytes, 512 latents. Both sides read a prompt
with one latent (`num_latents="official"`; his default), then take the likeliest byte, step by step. On his side these
are calls of his model with his cache, cut as his `prepare_inputs_for_generation` does; what transformers adds to a step
is left out. The sides take turns, a few steps each. Seconds are the processor's, of all threads, which other programs
on the machine disturb less than the clock's; with one thread on a quiet machine both are the same. Of the turns the
median counts, and of ratios that of neighbouring turns.

The bounds are what reading once takes, all weights that a step multiplies by and the keys and values that are held: at
the rate of the products of a step alone (by MKL, one by one or in batches of two, or by oneDNN, of weights as they are
or arranged for it: whichever is the fastest in this run), and at that of a sum.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# His examples/training/clm/train.sh; what it leaves out are his defaults.
SIZES: dict[str, Any] = {"vocab_size": 262, "max_seq_len": 4096, "max_latents": 512, "num_channels": 512}


def his_model(checkout: Path) -> Any:
    """His model, with weights as he initialises them but of a size at which a step's logits differ."""
    import torch

    # The name of what his code imports and uses only to train with less memory.
    fairscale: Any = types.ModuleType("fairscale")
    fairscale.nn = types.ModuleType("fairscale.nn")
    fairscale.nn.checkpoint_wrapper = None
    sys.modules.setdefault("fairscale", fairscale)
    sys.modules.setdefault("fairscale.nn", fairscale.nn)
    sys.path.insert(0, str(checkout.resolve()))
    from perceiver.model.core import CausalSequenceModel, CausalSequenceModelConfig

    torch.manual_seed(0)
    return CausalSequenceModel(CausalSequenceModelConfig.create(**SIZES, init_scale=0.05)).eval()


def our_model(his: Any) -> Any:
    """Our model with his weights."""
    from perceiver_io.presets import model_from_config
    from perceiver_io.weights import krasserm, krasserm_ar
    from perceiver_io.weights.tables import apply_table

    config = krasserm_ar.model_config(SIZES, None)
    model = model_from_config(config)
    model.load_state_dict(
        apply_table(krasserm_ar.name_table(config), krasserm.unwrap(his.state_dict()), config, "his model")
    )
    return model.eval()


def his_generation(model: Any, prompt: Any) -> Iterator[Any]:
    """Yields logits [batch, vocab] of each step."""
    import torch

    most_latents, most_inputs = model.max_latents, model.max_seq_len
    tokens, prefix, length, cache = prompt, prompt.shape[1] - 1, prompt.shape[1], []
    while True:
        with torch.inference_mode():
            output = model(tokens, prefix_len=prefix, kv_cache=cache)
        logits = output.logits[:, -1]
        yield logits
        tokens = logits.argmax(-1, keepdim=True)
        length += 1
        (key, value), *others = output.kv_cache
        if length > most_inputs:
            key, value = key[:, 1 - most_inputs :], value[:, 1 - most_inputs :]
        if length - prefix > most_latents:
            prefix = min(prefix + 1, model.max_prefix_len)
            others = [(k[:, 1 - most_latents :], v[:, 1 - most_latents :]) for k, v in others]
        cache = [(key, value), *others]


def our_generation(model: Any, prompt: Any) -> Iterator[Any]:
    """Yields logits [batch, vocab] of each step."""
    run = model.generate(prompt, max_new_tokens=2000, temperature=0, num_latents="official")
    for _ in run:
        yield run.logits


def timed(steps: Iterator[Any], number: int) -> float:
    """Processor seconds of a step, the mean of some."""
    start = time.process_time()
    for _ in range(number):
        next(steps)
    return (time.process_time() - start) / number


def step_weights(model: Any) -> list[Any]:
    """The matrices of ours that a step multiplies by, each once."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("position_tables")]
    return [matrix for matrix in matrices if matrix.shape[0] != 1]


def readers(weights: list[Any], batch: int) -> tuple[list[Callable[[], Any]], Callable[[], Any]]:
    """Ways to read the weights once: the products of a step alone, and a sum of as much memory in one piece."""
    import torch
    from torch.nn import functional as F

    rows = {w.shape[1]: torch.randn(batch, 1, w.shape[1], dtype=w.dtype) for w in weights}
    product = torch.ops.mkldnn._linear_pointwise.default
    packed = [torch.ops.mkldnn._reorder_linear_weight(w.detach(), batch) for w in weights]
    pairs = list(zip(packed, weights, strict=True))
    halves = [w.view(2, -1, w.shape[1]) for w in weights]
    columns = {width: row[:, 0].t().expand(2, -1, -1) for width, row in rows.items()}
    products: list[Callable[[], Any]] = [
        lambda: [F.linear(rows[w.shape[1]], w) for w in weights],
        lambda: [product(rows[w.shape[1]], w, None, "none", [], "") for w in weights],
        lambda: [product(rows[w.shape[1]], p, None, "none", [], "") for p, w in pairs],
        lambda: [torch.bmm(w, columns[w.shape[2]]) for w in halves],
    ]
    piece = torch.cat([weight.flatten() for weight in weights]).view(torch.int64)
    return products, piece.sum


def compare(his: Any, ours: Any, batch: int, prompt_length: int, turns: int, steps: int, dtype: str) -> list[str]:
    """A line of the table."""
    import torch

    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, SIZES["vocab_size"], (batch, prompt_length), generator=generator)
    weights = step_weights(ours)
    products, sum_of_weights = readers(weights, batch)
    with torch.inference_mode():
        first: list[list[float]] = [[], []]
        for _ in range(3):
            runs = [our_generation(ours, prompt), his_generation(his, prompt)]
            for side, run in enumerate(runs):
                first[side].append(timed(run, 1))
        difference = largest_difference(our_generation(ours, prompt), his_generation(his, prompt))
        seconds: list[list[float]] = [[], []]
        multiplying, reading = [], []
        for _ in range(turns):
            for side, run in enumerate(runs):
                seconds[side].append(timed(run, steps))
            multiplying.append(min(timed(iter(way, None), 4) for way in products))
            reading.append(timed(iter(sum_of_weights, None), 4))
    held = prompt_length + ours.config.num_self_attends * turns * steps / 2
    cache = 2 * held * ours.config.embed_channels * batch * weights[0].element_size()
    share = cache / sum(weight.nbytes for weight in weights)
    medians = [statistics.median(side) for side in seconds]
    bounds = [statistics.median(times) + share * statistics.median(reading) for times in (multiplying, reading)]
    ratios = [
        statistics.median(theirs / mine for mine, theirs in zip(*sides, strict=True)) for sides in (first, seconds)
    ]
    return [
        f"{batch}",
        dtype,
        f"{difference:.1e}",
        f"{min(first[0]):.3f} / {min(first[1]):.3f} s ({ratios[0]:.2f}×)",
        f"{batch / medians[0]:.0f} / {batch / medians[1]:.0f} ({ratios[1]:.2f}×)",
        f"{1e3 * medians[0]:.1f} ms",
        *(f"{1e3 * bound:.1f} ms ({bound / medians[0]:.0%})" for bound in bounds),
    ]


def largest_difference(ours: Iterator[Any], his: Iterator[Any]) -> float:
    """Of the logits of the first steps, as long as these choose the same bytes, in their standard deviations."""
    differences = [0.0]
    for _ in range(8):
        mine, theirs = next(ours).float(), next(his)
        differences.append(float((mine - theirs).abs().max() / theirs.std()))
        if bool((mine.argmax(-1) != theirs.argmax(-1)).any()):
            break
    return max(differences)


def cache_bytes(ours: Any, batch: int, prompt_length: int) -> int:
    """Bytes of the cache after a run's first step."""
    import torch

    run = ours.generate(torch.zeros(batch, prompt_length, dtype=torch.long), max_new_tokens=2000, num_latents=1)
    next(run)
    return int(run.cache.nbytes)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--krasserm", type=Path, required=True, metavar="CHECKOUT", help="of krasserm/perceiver-io")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=2048, help="bytes of the prompt")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=12, help="of each side")
    parser.add_argument("--steps", type=int, default=16, help="of a turn")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    his = his_model(arguments.krasserm)
    ours = our_model(his)
    print("parameters:", *(f"{sum(p.numel() for p in model.parameters()):,}" for model in (ours, his)))
    columns = ["batch", "ours in", "difference / std", "first token: ours / his", "tokens/s: ours / his", "our step"]
    columns += ["products alone, and reading the cache", "reading alone"]
    print(f"| {' | '.join(columns)} |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for dtype in arguments.dtypes:
        ours = ours.to(getattr(torch, dtype))
        for batch in arguments.batches:
            cells = compare(his, ours, batch, arguments.prompt, arguments.turns, arguments.steps, dtype)
            print(f"| {' | '.join(cells)} |", flush=True)
    ours.float()
    for batch in arguments.batches:
        print(f"cache, batch {batch}: {cache_bytes(ours, batch, arguments.prompt) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
