"""Mixtures of data sets with shares."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perceiver_io.training import Draw, DrawSampler
from perceiver_io.training.mixtures import Mixture, MixtureEvaluation, mixed
from tests.training.small_run import Interrupted, Pictures, Scores, interrupt, losses, make_trainer, objective, stopping


class Numbers:
    """Says which example was asked for."""

    def __init__(self, length: int, name: str = "numbers") -> None:
        self.length = length
        self.name = name

    def fingerprint(self) -> str:
        return f"{self.name} {self.length}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        assert 0 <= draw.index < self.length
        return {"index": torch.tensor(draw.index), "seed": torch.tensor(draw.seed)}


def sources(mixture: Mixture, epoch: int = 0) -> list[tuple[int, int]]:
    """Data set and example of the draws of an epoch, in order."""
    found = [mixture.source(Draw(index, 0, epoch=epoch)) for index in range(len(mixture))]
    return [(number, draw.index) for number, draw in found]


def first_sources(mixture: Mixture, num_draws: int) -> list[int]:
    """Data sets of the first draws of a run."""
    sampler = DrawSampler(len(mixture), batch_size=num_draws, num_steps=1, seed=4)
    return [mixture.source(draw)[0] for draw in sampler.draws(0)]


@settings(max_examples=4)
@given(
    lengths=st.lists(st.integers(1, 600), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_the_shares_of_an_epoch(lengths: list[int], weights: list[int]) -> None:
    total = sum(weights[: len(lengths)])
    shares = [weight / total for weight in weights[: len(lengths)]]
    mixture = Mixture([Numbers(length) for length in lengths], shares)
    counts = Counter(number for number, _ in sources(mixture))
    for number, share in enumerate(shares):
        assert abs(counts[number] - share * len(mixture)) <= 1
    lasting = min(length / share for length, share in zip(lengths, shares, strict=True))
    assert len(mixture) == pytest.approx(max(1000, lasting), abs=1)


def test_no_example_comes_twice_before_all_have_come() -> None:
    mixture = Mixture([Numbers(1500), Numbers(350)], [0.7, 0.3])
    assert len(mixture) == 1167
    drawn = [found for epoch in range(3) for found in sources(mixture, epoch)]
    for number, length in enumerate((1500, 350)):
        times = Counter(index for source, index in drawn if source == number)
        assert len(times) == length
        assert max(times.values()) - min(times.values()) <= 1


def test_an_epoch_is_spread_over_a_large_data_set() -> None:
    mixture = Mixture([Numbers(100_000), Numbers(300)], [0.7, 0.3])
    seen = sorted(index for source, index in sources(mixture) if source == 0)
    assert len(seen) == 700
    assert max(after - before for before, after in zip([0, *seen], [*seen, 100_000], strict=True)) < 3 * 100_000 / 700


def test_any_run_of_draws_has_the_shares() -> None:
    counts = Counter(first_sources(Mixture([Numbers(3000), Numbers(700)], [0.7, 0.3]), 1000))
    assert abs(counts[0] - 700) < 4 * (1000 * 0.7 * 0.3) ** 0.5  # four standard deviations


def test_the_seed_is_the_draws_own() -> None:
    mixture = Mixture([Numbers(30), Numbers(70)], [0.5, 0.5])
    assert mixture[Draw(3, 9)]["seed"] == mixture[Draw(800, 9)]["seed"] == 9


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.7, 0.2], r"the shares 0\.7 \+ 0\.2 are 0\.9; they must add up to 1"),
        ([0.7, 0.7], r"the shares 0\.7 \+ 0\.7 are 1\.4; they must add up to 1"),
        ([1.5, -0.5], r"the share 1\.5 must be above 0 and at most 1"),
        ([1.0, 0.0], r"the share 0 must be above 0 and at most 1"),
        ([1.0, 1e-12], r"the share 1e-12 is below 1e-06; leave these examples out"),
        ([float("nan"), 1.0], r"the share nan must be above 0 and at most 1"),
    ],
)
def test_bad_shares(shares: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture([Numbers(3), Numbers(4)], shares)


def test_the_fingerprint_knows_data_sets_and_shares() -> None:
    def fingerprint(name: str = "a", shares: tuple[float, float] = (0.7, 0.3)) -> str:
        return Mixture([Numbers(5, name), Numbers(6, "b")], shares).fingerprint()

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint("c"), fingerprint(shares=(0.3, 0.7))}) == 3
    assert Mixture([Numbers(5), Pictures()], (0.7, 0.3)).fingerprint() == ""  # its examples are looked at instead


def test_a_run_is_not_resumed_with_other_shares(tmp_path: Path) -> None:
    class Known(Pictures):
        def fingerprint(self) -> str:
            return "pictures"

    def fit(*shares: float) -> None:
        make_trainer(tmp_path, dataset=Mixture([Known(), Known()], shares), model=Scores(), num_steps=2).fit()

    fit(0.25, 0.75)
    with pytest.raises(ValueError, match="data"):
        fit(0.75, 0.25)


def test_one_data_set_stays_as_it_is() -> None:
    only = Numbers(3)
    assert mixed([only], [1.0]) is only


def test_figures_of_each_and_their_weighted_means() -> None:
    evaluation = MixtureEvaluation(
        evaluations={"c4": lambda model: {"loss": 2.0}, "wikipedia": lambda model: {"loss": 1.0}}, shares=(0.7, 0.3)
    )
    assert evaluation(nn.Identity()) == pytest.approx({"loss": 1.7, "loss_c4": 2.0, "loss_wikipedia": 1.0})


def test_an_interrupted_run_goes_on_alike_with_other_workers(tmp_path: Path) -> None:
    mixture = Mixture([Pictures(), Pictures()], [0.25, 0.75])
    make_trainer(tmp_path / "whole", dataset=mixture, model=Scores()).fit()
    with pytest.raises(Interrupted):
        stopped = stopping(objective, 6, interrupt)
        make_trainer(tmp_path / "parts", dataset=mixture, model=Scores(), objective=stopped).fit()
    make_trainer(tmp_path / "parts", dataset=mixture, model=Scores(), num_workers=1).fit()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
