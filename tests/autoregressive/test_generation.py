"""Generation: each cached step is a full forward pass with as many latents; what is drawn, and what is refused."""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import perceiver_io
from perceiver_io.autoregressive.cache import Cache, Slots
from perceiver_io.autoregressive.sampling import CodeBooks, Sampler
from tests.autoregressive.small import CACHED, KINDS, UNCACHED, random_tokens, small_model
from tests.unchecked import unchecked


def check_every_step(model: Any, prompts: list[torch.Tensor], run: Any, steps: int) -> list[int]:
    """Compares the logits of each step, for each sequence alone, with a full pass with as many latents."""
    counts = []
    for _ in range(steps):
        before = run.sequences
        tokens = next(run)
        counts.append(run.num_latents)
        for row, sequence in enumerate(before):
            with torch.inference_mode():
                full = model(torch.tensor([sequence]), num_latents=min(run.num_latents, len(sequence)))[0, -1]
            error = (run.logits[row] - full).abs().max() / full.std()
            assert error <= 1e-5, f"step {len(counts)}, sequence {row}: {error:.1e}"
        assert [sequence[-1] for sequence in run.sequences] == tokens.tolist()
    return counts


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("kind", CACHED)
def test_each_cached_step_is_a_full_pass(kind: str, accelerated: bool) -> None:
    model = small_model(kind)
    if accelerated:
        perceiver_io.accelerate(model)
    prompts = random_tokens(5, 1, 3)
    run = model.generate(prompts, max_new_tokens=10, seed=3, num_latents=2, reset_latents=4)
    assert check_every_step(model, prompts, run, 10) == [2, 3, 4, 5, 6, 4, 5, 6, 4, 5]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    start=st.integers(1, 6),
    reset=st.integers(1, 6),
    most=st.integers(6, 9),
)
def test_each_cached_step_is_a_full_pass_for_any_policy(lengths: list[int], start: int, reset: int, most: int) -> None:
    model = small_model()
    prompts = random_tokens(*lengths)
    run = model.generate(prompts, max_new_tokens=8, seed=1, num_latents=start, reset_latents=reset, max_latents=most)
    counts = check_every_step(model, prompts, run, 8)
    assert counts[0] == min(start, max(lengths))
    for previous, now in itertools.pairwise(counts):
        assert now == (reset if previous == most else previous + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_cache_each_step_is_a_full_pass(kind: str) -> None:
    model = small_model(kind)
    prompts = random_tokens(5, 2)
    run = model.generate(prompts, max_new_tokens=6, seed=3, cache=False)
    per_position = model.config.latents_per_position
    for _ in range(6):
        before = run.sequences
        next(run)
        for row, sequence in enumerate(before):
            latents = min(model.config.num_latents, len(sequence) * per_position)
            with torch.inference_mode():
                full = model(torch.tensor([sequence]), num_latents=latents)[0, -1]
            assert (run.logits[row] - full).abs().max() / full.std() <= 1e-5


def test_the_first_step_of_the_default_is_the_models_own_prediction() -> None:
    model = small_model()
    (prompt,) = random_tokens(12)
    run = model.generate([prompt], temperature=0, max_new_tokens=1)
    expected = model(prompt[None])[:, -1]
    assert torch.allclose(torch.stack(list(run))[0], expected[:, 1:].argmax(-1) + 1)
    assert torch.allclose(run.logits, expected, atol=1e-5)


def test_the_official_policy() -> None:
    run = small_model().generate(random_tokens(5), num_latents="official", max_new_tokens=9)
    assert [run.num_latents for _ in run] == [1, 2, 3, 4, 5, 6, 3, 4, 5]


def test_sequences_of_a_batch_do_not_influence_one_another() -> None:
    model = small_model()
    prompts = random_tokens(7, 1, 4)
    together = list(model.generate(prompts, temperature=0, max_new_tokens=8))
    for row, prompt in enumerate(prompts):
        # The same policy: shorter prompts have fewer latents at the start, of which padding takes the place.
        alone = list(model.generate([prompt], temperature=0, max_new_tokens=8, cache=False))
        batched = list(model.generate(prompts, temperature=0, max_new_tokens=8, cache=False))
        assert [int(t[row]) for t in batched] == [int(t[0]) for t in alone]
    assert len(together) == 8


def test_prompts_as_a_tensor_are_right_padded() -> None:
    model = small_model()
    rows = random_tokens(5, 2)
    tensor = torch.zeros(2, 5, dtype=torch.long)
    for row, own in enumerate(rows):
        tensor[row, : len(own)] = own
    first, second = (list(model.generate(p, seed=4, max_new_tokens=5)) for p in (rows, tensor))
    assert torch.equal(torch.stack(first), torch.stack(second))


def test_beyond_the_context_the_cache_rolls_and_says_so() -> None:
    model = small_model()
    run = model.generate(random_tokens(13), max_new_tokens=12, seed=0, num_latents=1)
    with pytest.warns(UserWarning, match=r"grown past max_context_length \(15\)"):
        tokens = list(run)
    assert len(tokens) == 12 and run.rolled
    assert run.cache is not None and run.cache.inputs.capacity == 15
    # Where every step is a full pass, nothing rolls.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = model.generate(random_tokens(13), max_new_tokens=5, seed=0, reset_latents=6)
        for _ in range(5):
            before = fresh.sequences[0]
            next(fresh)
            full = model(torch.tensor([before[-15:]]))[0, -1]
            assert torch.allclose(fresh.logits[0], full, atol=1e-5)
    assert not fresh.rolled


def test_the_cache_is_made_once_and_of_the_size_computed() -> None:
    model = small_model()
    run = model.generate(random_tokens(5, 3), max_new_tokens=9, num_latents=1)
    next(run)
    cache = run.cache
    assert isinstance(cache, Cache)
    layers = (*cache.cross_attends, *cache.self_attends)
    addresses = [layer.keys.data_ptr() for layer in layers if layer.keys is not None]
    list(run)
    assert addresses == [layer.keys.data_ptr() for layer in layers if layer.keys is not None]
    # 2 sequences, 4 bytes, keys and values: 14 inputs of 12 channels, 6 latents of 16 in 3 layers.
    assert cache.nbytes == 2 * 4 * 2 * (14 * 12 + 3 * 6 * 16)


def test_a_cache_refuses_what_does_not_fit() -> None:
    slots = Slots(4)
    slots.advance(3, None)
    with pytest.raises(ValueError, match="keeps 4 entries and holds 3; 2 more at once do not fit"):
        slots.advance(2, None)


def test_stop_tokens_end_sequences() -> None:
    model = small_model()
    prompts = random_tokens(3, 6)
    free = torch.stack(list(model.generate(prompts, seed=5, max_new_tokens=9)), dim=1)
    stop = int(free[0, 2])
    run = model.generate(prompts, seed=5, max_new_tokens=9, stop_tokens=[stop])
    tokens = torch.stack(list(run), dim=1)
    for row in range(2):
        ends = (tokens[row] == stop).nonzero()[:, 0].tolist()
        if ends:
            assert not tokens[row, ends[0] + 1 :].any()  # padding
            assert run.sequences[row][-1] == stop and len(run.sequences[row]) == len(prompts[row]) + ends[0] + 1
    assert bool(run.finished[0])


def test_padding_is_never_drawn() -> None:
    model = small_model()
    assert model.output is not None
    with torch.no_grad():
        model.output.bias[0] = 100.0
    for options in ({"temperature": 0}, {"seed": 1}, {"seed": 1, "top_k": 3}, {"seed": 1, "top_p": 0.3}):
        for tokens in model.generate(random_tokens(3, 2), max_new_tokens=6, **options):
            assert (tokens != 0).all()


def test_seeds() -> None:
    model = small_model()

    def run(seed: int | None) -> list[list[int]]:
        return [t.tolist() for t in model.generate(random_tokens(4, 2), seed=seed, max_new_tokens=10)]

    assert run(1) == run(1) != run(2)
    assert run(None) != run(None)


def test_allowed_tokens_by_position_of_each_sequence() -> None:
    model = small_model(vocab_size=3 + 3 * 6, max_context_length=20)
    books = CodeBooks(3, 6)
    prompts = [torch.tensor([2]), torch.tensor([2, 4, 10, 16])]
    run = model.generate(prompts, seed=0, max_new_tokens=9, allowed=books)
    list(run)
    for sequence in run.sequences:
        for index, token in enumerate(sequence):
            assert token < 3 or (token - 3) // 6 == (index - 1) % 3


def test_positions_that_are_given() -> None:
    """Positions of a picture, one set for all sequences; shorter prompts are at earlier ones."""
    model = small_model("sinusoidal", position_tables="learned", position_sizes=(7, 5))
    positions = torch.stack([torch.arange(14) % 7, torch.arange(14) // 7], dim=-1)[None]
    run = model.generate(random_tokens(5, 2), seed=0, max_new_tokens=8, num_latents=1, positions=positions)
    for _ in range(8):
        before = run.sequences
        next(run)
        for row, sequence in enumerate(before):
            where = positions[:, : len(sequence)]
            full = model(torch.tensor([sequence]), where, num_latents=min(run.num_latents, len(sequence)))
            assert torch.allclose(run.logits[row], full[0, -1], atol=1e-5)
    with pytest.raises(ValueError, match="positions of 5 tokens must be given for all 12"):
        model.generate(random_tokens(5), max_new_tokens=8, positions=positions[:, :5])


@given(
    top_k=st.one_of(st.none(), st.integers(1, 9)),
    top_p=st.one_of(st.none(), st.floats(0.01, 1)),
    temperature=st.floats(0.1, 3),
)
def test_what_sampling_keeps(top_k: int | None, top_p: float | None, temperature: float) -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)) * 2
    kept = Sampler(temperature=temperature, top_k=top_k, top_p=top_p).filter(logits, 0).isfinite()
    assert kept.any(1).all()
    assert kept.gather(1, logits.argmax(1, keepdim=True)).all()
    if top_k is not None:
        assert (kept.sum(1) <= top_k).all()
    # What is kept is likelier than what is not.
    likeliest_left_out = logits.masked_fill(kept, -torch.inf).amax(1)
    assert (logits.masked_fill(~kept, torch.inf).amin(1) >= likeliest_left_out).all()
    if top_p is not None and top_k is None:
        probabilities = logits.softmax(1)
        assert ((probabilities * kept).sum(1) >= top_p - 1e-5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "prompts are empty"),
        ({"prompts": [[1, 2], []]}, "prompt 1 is empty"),
        ({"prompts": [[1, 0, 2]]}, r"prompt 0 has the padding token \(0\) in it"),
        ({"prompts": [[1, 23]]}, "prompt 0 must lie in 0…22"),
        ({"max_new_tokens": 0}, r"max_new_tokens \(0\) must be at least 1"),
        ({"temperature": -1.0}, r"temperature \(-1.0\) must be 0"),
        ({"top_k": 0}, r"top_k \(0\) must be at least 1"),
        ({"top_p": 1.5}, r"top_p \(1.5\) must lie in 0…1"),
        ({"stop_tokens": [23]}, r"stop_tokens \[23\] must lie in 0…22"),
        ({"num_latents": 7}, r"num_latents \(7\) must lie in 1…6, .* max_latents makes room"),
        ({"reset_latents": 0}, r"reset_latents \(0\) must lie in 1…6"),
        ({"allowed": lambda index: torch.ones(4, dtype=torch.bool)}, r"allowed\(2\) \(4,\) must be of the vocabulary"),
        ({"allowed": lambda index: torch.arange(23) == 0}, r"allowed\(2\) leaves no token"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(small_model().generate(**{"prompts": [[1, 2]], **arguments}))


@pytest.mark.parametrize("kind", UNCACHED)
def test_models_that_cannot_be_cached_say_so(kind: str) -> None:
    with pytest.raises(ValueError, match="generate with cache=False"):
        small_model(kind).generate([[1]], cache=True)


def test_refuses_training_mode() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval"):
        small_model().train().generate([[1]])


def test_integers_of_numpy_are_taken() -> None:
    model = small_model("rotary")
    numbers: dict[str, Any] = {"num_latents": 1, "max_new_tokens": 3, "seed": 1, "reset_latents": 2, "max_latents": 4}
    expected = [step.tolist() for step in model.generate(random_tokens(5, 2), **numbers)]
    with unchecked():
        others = {name: np.int64(number) for name, number in numbers.items()}
        assert [step.tolist() for step in model.generate(random_tokens(5, 2), **others)] == expected
        with pytest.raises(ValueError, match=r"num_latents \(1.5\) must be an integer of at least 1"):
            next(model.generate(random_tokens(5, 2), num_latents=1.5))  # type: ignore[arg-type]


def test_only_steps_with_the_cache_are_compiled() -> None:
    with pytest.raises(ValueError, match="compile=True makes a program of the steps with the cache; leave out cache"):
        small_model().generate(random_tokens(3), max_new_tokens=2, cache=False, compile=True)


@pytest.mark.parametrize(("length", "capacity"), [(3, 8), (6, 8), (7, 16), (30, 32)])
def test_compiled_steps_of_many_lengths_have_few_sizes(length: int, capacity: int) -> None:
    model = small_model()
    run = model.generate(random_tokens(length), max_new_tokens=2, compile=True)
    assert run.cache.inputs.capacity == min(capacity, model.config.max_context_length)
