"""Steps of generation by recordings: those of the plain model. On the CPU a stand-in records."""

import copy
from typing import Any

import pytest
import torch

from perceiver_io import accelerate, undo_accelerate
from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.fast import graphs, recorded_steps
from perceiver_io.fast.waiting import NothingWaits
from tests.autoregressive.small import CACHED, SIZES
from tests.fast.test_graphs import OnTheCpu
from tests.randomised import randomised

pytestmark = pytest.mark.usefixtures("as_on_cuda")
TRIED = ("sinusoidal", "some_heads", "more_cross_attends", "krasserm")
PROMPTS = [[3, 1, 4, 1, 5], [9, 2]]


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[OnTheCpu]:
    """What records, one for each model and each cache."""
    made: list[OnTheCpu] = []

    def make() -> OnTheCpu:
        made.append(OnTheCpu())
        return made[-1]

    monkeypatch.setattr(graphs, "CudaRecorder", make)
    monkeypatch.setattr(recorded_steps, "_FEWEST", 4)
    return made


def pair(kind: str = "rotary", **options: Any) -> tuple[PerceiverAR, PerceiverAR]:
    """A plain model, and an accelerated one with the same weights."""
    model = randomised(PerceiverAR(PerceiverARConfig(**{**SIZES, **CACHED[kind]}))).eval()
    return model, accelerate(copy.deepcopy(model), **options)


@pytest.mark.parametrize(
    "kind", [kind if kind in TRIED else pytest.param(kind, marks=pytest.mark.slow) for kind in CACHED]
)
def test_generation_is_the_plain_models(kind: str, recorders: list[OnTheCpu]) -> None:
    model, fast = pair(kind)
    prompts = PROMPTS if model.config.pad_token is not None else [PROMPTS[0]]
    plain, recorded = (either.generate(prompts, max_new_tokens=9, seed=3) for either in (model, fast))
    for expected in plain:
        assert torch.equal(next(recorded), expected)
        torch.testing.assert_close(recorded.logits, plain.logits)
    steps = recorders[-1]
    assert isinstance(recorded.cache.recorded, recorded_steps.RecordedSteps)
    assert steps.replays >= 5
    assert steps.records <= 4  # 4, 8 and 15 inputs; 4 and 6 latents


def test_a_change_of_weights_between_steps_is_seen(recorders: list[OnTheCpu]) -> None:
    model, fast = pair()
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0, "num_latents": 1}
    plain, recorded = (either.generate(PROMPTS, **options) for either in (model, fast))
    for step, expected in enumerate(plain):
        assert torch.equal(next(recorded), expected)
        if step == 2:
            for either in (model, fast):
                with torch.no_grad():
                    either.embedding.weight.mul_(1.5)
        if step == 3:
            fast.load_state_dict({name: value.clone() for name, value in fast.state_dict().items()}, assign=True)
    assert recorders[-1].order.count("finished") == 1


def test_steps_can_be_turned_off(recorders: list[OnTheCpu]) -> None:
    model, fast = pair(max_graphs=0)
    expected = list(model.generate(PROMPTS, max_new_tokens=4, temperature=0))
    for generated, plain in zip(fast.generate(PROMPTS, max_new_tokens=4, temperature=0), expected, strict=True):
        assert torch.equal(generated, plain)
    for _ in undo_accelerate(accelerate(fast)).generate(PROMPTS, max_new_tokens=2):
        pass
    assert not any(recorder.records for recorder in recorders)


def test_steps_wait_for_nothing(recorders: list[OnTheCpu]) -> None:
    _, fast = pair()
    generation = fast.generate([PROMPTS[0], PROMPTS[0]], max_new_tokens=4, top_k=5, top_p=0.9, num_latents=1)
    next(generation)
    with NothingWaits():
        next(generation)


def test_copies_of_a_cache_hold_no_recordings(recorders: list[OnTheCpu]) -> None:
    _, fast = pair()
    generation = fast.generate([PROMPTS[0]], max_new_tokens=4, num_latents=1)
    next(generation), next(generation)
    cache = generation.cache
    assert cache is not None and cache.recorded is not None
    assert copy.deepcopy(cache).recorded is None


def test_parts_in_training_stay_so_and_are_not_recorded(recorders: list[OnTheCpu]) -> None:
    _, fast = pair()
    fast.self_attends[0].train()
    for _ in fast.generate([PROMPTS[0]], max_new_tokens=4, num_latents=1):
        pass
    assert fast.self_attends[0].training
    assert not any(recorder.records for recorder in recorders)
