"""Compiles steps of generation; run as a script, without the run-time checks that compilers cannot trace.

python -m tests.autoregressive.compile_steps
"""

import torch
from torch._dynamo.testing import CompileCounter

import perceiver_io
from perceiver_io.autoregressive.compiled import CompiledStep
from tests.autoregressive.small import random_tokens, small_model

KINDS = ("some_heads", "more_cross_attends", "krasserm_absolute")


def main() -> None:
    for kind in KINDS:
        one_program_serves_all_steps(kind)
        print(kind, flush=True)
    generation_is_the_same()
    print("generation", flush=True)


def one_program_serves_all_steps(kind: str) -> None:
    """Prompts of different lengths; the cache is filled, rolls, and is cleared and filled again."""
    model = perceiver_io.accelerate(small_model(kind))
    tokens, mask = torch.zeros(3, 8, dtype=torch.long), torch.zeros(3, 8, dtype=torch.bool)
    for row, prompt in enumerate(random_tokens(8, 5, 3)):
        tokens[row, 8 - len(prompt) :], mask[row, 8 - len(prompt) :] = prompt, True
    caches = [model.new_cache(12) for _ in range(2)]
    counter, step = CompileCounter(), None
    torch._dynamo.reset()
    with torch.inference_mode():
        for _ in range(2):
            for cache in caches:
                cache.clear()
                model.next_logits(tokens, num_latents=2, mask=mask, cache=cache)
            step = step or CompiledStep(model, caches[0], counter)
            for new in torch.stack(random_tokens(3, 3, 3, 3, 3, 3)):
                ours, expected = step(new[:, None]), model.next_logits(new[:, None], cache=caches[1])
                assert (ours - expected).abs().max() <= 1e-5 * expected.std(), (kind, ours - expected)
                assert caches[0].num_latents == caches[1].num_latents
    assert counter.frame_count == 1, (kind, counter.frame_count)


def generation_is_the_same() -> None:
    """By torch's own compiler, over a reset."""
    model = small_model()
    runs = [
        model.generate(random_tokens(5, 2), seed=1, max_new_tokens=9, num_latents=1, compile=compiled)
        for compiled in (True, False)
    ]
    for ours, expected in zip(*runs, strict=True):
        assert torch.equal(ours, expected)
        assert torch.allclose(runs[0].logits, runs[1].logits, atol=1e-5)


if __name__ == "__main__":
    main()
