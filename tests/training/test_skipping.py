"""Data sets with examples that cannot be used."""

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from perceiver_io.training import Draw
from perceiver_io.training.data.skipping import SkipUnusable


class Damaged:
    """Examples some of which cannot be read."""

    def __init__(self, damaged: set[int], number: int = 7, kind: type[BaseException] = ValueError) -> None:
        self.damaged = damaged
        self.number = number
        self.kind = kind

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        if draw.index in self.damaged:
            raise self.kind(f"file {draw.index} is damaged")
        return {"index": torch.tensor(draw.index), "seed": torch.tensor(draw.seed)}


def test_another_example_takes_the_place() -> None:
    dataset = SkipUnusable(Damaged({2, 3, 6}))
    assert len(dataset) == 7
    for seed in range(30):
        found = [int(dataset[Draw(index, seed)]["index"]) for index in range(7)]
        assert [found[index] for index in (0, 1, 4, 5)] == [0, 1, 4, 5]
        assert {found[index] for index in (2, 3, 6)} <= {0, 1, 4, 5}
    assert dataset[Draw(2, 5)]["seed"] == 5
    assert dataset.unusable() == [2, 3, 6]


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1), st.integers(0, 2**62))))
def test_every_example_is_tried_once(case: tuple[int, int, int]) -> None:
    number, index, seed = case
    dataset = SkipUnusable(Damaged(set(), number))
    candidates = list(dataset._candidates(Draw(index, seed)))
    assert candidates[0] == index
    assert sorted(candidates) == list(range(number))


def test_the_places_of_a_damaged_folder_go_to_many_others() -> None:
    dataset = SkipUnusable(Damaged(set(range(100)), 1000))
    places = {int(dataset[Draw(index, seed)]["index"]) for index in range(100) for seed in range(2)}
    assert len(places) > 150


class OddError(Exception):
    """What no reader of files should raise."""


@pytest.mark.parametrize("kind", [ValueError, OSError, OddError, struct.error, RecursionError, MemoryError])
def test_whatever_a_reader_raises_ends_no_run(kind: type[Exception]) -> None:
    dataset = SkipUnusable(Damaged({1}, kind=kind))
    assert dataset[Draw(1, 0)]["index"] != 1


def test_an_interruption_is_no_damage() -> None:
    with pytest.raises(KeyboardInterrupt):
        SkipUnusable(Damaged({1}, kind=KeyboardInterrupt))[Draw(1, 0)]


def test_processes_that_load_data_count_too() -> None:
    dataset = SkipUnusable(Damaged({2}))
    draws = [Draw(index, 0) for index in range(4)]
    batches = list(DataLoader(dataset, 2, sampler=draws, num_workers=1))  # type: ignore[arg-type]
    (first, (third, fourth)) = (batch["index"].tolist() for batch in batches)
    assert first == [0, 1]
    assert (third != 2, fourth) == (True, 3)
    assert dataset.unusable() == [2]


def test_no_usable_example_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of 7 examples can be used; one of the reasons: file 4 is damaged"):
        SkipUnusable(Damaged(set(range(7))))[Draw(4, 0)]


def test_a_warning_tells_how_many_were_left_out_and_why_the_first() -> None:
    dataset = SkipUnusable(Damaged({2, 3, 6}))
    dataset.warn_of_unusable()  # warnings are errors in tests
    for index in (6, 2, 2):
        dataset[Draw(index, 0)]
    with pytest.warns(
        UserWarning, match="3 of 7 examples could not be used, and others took .* first: file 2 is damaged"
    ):
        dataset.warn_of_unusable()
    dataset.dataset.damaged.clear()  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="3 of 7 examples .*; the first: number 2, at times"):
        dataset.warn_of_unusable()
