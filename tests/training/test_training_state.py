"""States on disk: there is always a whole one, damage is found out, and full disks are told of."""

import errno
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.amp import GradScaler

from perceiver_io.training.run_directory import occupied
from perceiver_io.training.training_state import load_state, previous, save_state
from tests.training.file_operations import after_operation, dies_after

RUN = {"seed": 3}
OPERATIONS = 400  # more than a save has


class Small:
    """A model and its optimiser, in the state after some step."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.pt"
        self.model = nn.Linear(5, 3)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.1)
        self.scaler = GradScaler("cpu", enabled=False)

    def save(self, step: int) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(step)
        save_state(self.path, step, self.model, self.optimizer, self.scaler, RUN)

    def load(self, run: dict[str, Any] = RUN) -> int:
        step = load_state(self.path, self.model, self.optimizer, self.scaler, run)
        if step:
            assert all((parameter == step).all() for parameter in self.model.parameters())
        return step

    def load_after(self, end: str) -> int:
        """Loads as a run does that comes after one that ended so."""
        with occupied(self.path.parent, ["state.pt"]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is missing; the run goes on from the state before it")
            step = self.load()
        assert step in (2, 3), end
        assert {path.name for path in self.path.parent.iterdir()} <= {"state.pt", "state.previous.pt"}, end
        self.save(4)
        self.save(5)
        assert self.load() == 5
        return step


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """After two steps, both saved."""
    small = Small(tmp_path / "run")
    small.save(1)
    small.save(2)
    return small


def again(tmp_path: Path, number: int) -> Small:
    small = Small(tmp_path / f"run{number}")
    small.save(1)
    small.save(2)
    return small


def test_a_kill_after_any_operation_of_a_save_loses_nothing(tmp_path: Path) -> None:
    found = []
    for number in range(1, OPERATIONS):
        small = again(tmp_path, number)
        if not dies_after(number, lambda small=small: small.save(3)):
            break
        found.append(small.load_after(f"killed after operation {number}"))
    assert 8 < len(found) < OPERATIONS - 2
    assert set(found) == {2, 3}  # early and late enough


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file may be opened and not closed
def test_an_interruption_after_any_operation_of_a_save_loses_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for number in range(1, OPERATIONS):
        small = again(tmp_path, number)
        try:
            with after_operation(number, interrupt):
                small.save(3)
            break
        except KeyboardInterrupt:
            small.load_after(f"interrupted after operation {number}")
    assert 8 < number < OPERATIONS - 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_is_full_at_any_write_is_one_error_with_the_name(code: int, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(code, "reason")

    found = []
    for number in range(1, OPERATIONS):
        small = again(tmp_path, number)
        try:
            with after_operation(number, fail, {"write", "fsync"}):
                small.save(3)
            break
        except OSError as error:
            assert (error.errno, error.filename) == (code, str(small.path))
            assert {path.name for path in small.path.parent.iterdir()} == {"state.pt", "state.previous.pt"}
            found.append(small.load())
    # Of the directory alone the last word comes when the new state is in its place.
    assert found == [2] * (len(found) - 1) + [3]
    assert 3 < number < OPERATIONS - 2


def test_the_last_two_states_are_kept(small: Small) -> None:
    small.save(3)
    assert {path.name for path in small.path.parent.iterdir()} == {"state.pt", "state.previous.pt"}
    steps = [torch.load(path, weights_only=True)["step"] for path in (small.path, previous(small.path))]
    assert steps == [3, 2]


def cut(content: bytes) -> bytes:
    return content[: random.Random(0).randrange(len(content))]


@pytest.mark.parametrize("damage", [cut, lambda c: c[:-1], lambda c: b"", lambda c: bytes(len(c)), lambda c: b"hi"])
def test_the_state_before_takes_the_place_of_a_damaged_one(damage: Callable[[bytes], bytes], small: Small) -> None:
    small.path.write_bytes(damage(small.path.read_bytes()))
    with pytest.warns(
        UserWarning, match=r"state\.pt is damaged .*; the run goes on from the state before it, of step 1"
    ):
        assert small.load() == 1
    assert small.load() == 1  # without a warning: it is the last one now
    small.save(2)
    assert torch.load(previous(small.path), weights_only=True)["step"] == 1


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_out_wherever_it_is(
    where: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    small = Small(tmp_path_factory.mktemp("run"))
    small.save(1)
    content = bytearray(small.path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    small.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.pt is damaged .* missing; remove the damaged to start the run again"):
        small.load()


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"run": [1], "step": 3},
        {"run": RUN, "step": 3, "model": {}, "scaler": {}},
        {"run": RUN, "step": "3", "model": {}, "optimizer": {}, "scaler": {}},
        {"run": RUN, "step": 3, "model": {"x": torch.zeros(1)}, "optimizer": {}, "scaler": {}},
    ],
)
def test_what_is_no_state_is_refused_though_its_digest_is_right(
    content: Any, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: save(content, file))
    small.save(3)
    previous(small.path).unlink()
    with pytest.raises(ValueError, match=r"state\.pt (is damaged|does not fit)"):
        small.load()


def test_without_a_state_a_run_starts(tmp_path: Path) -> None:
    assert Small(tmp_path).load() == 0


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"seed": 3}, {"seed": 4}, "its seed is 3, not 4"),
        ({"seed": 3}, {}, "its seed is 3, not None"),
        ({"shape": {"a": [1], "b": [2]}}, {"shape": {"a": [1], "b": [3]}}, r"its shape of b is \[2\], not \[3\]"),
        ({"data": "abc"}, {"data": "abd"}, "its data are not those that are given now"),
        ({"data": [[1.0]]}, {"data": [[1.1]]}, "its data are not those that are given now"),
    ],
)
def test_another_run_is_refused_with_the_first_difference(
    before: dict[str, Any], now: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small = Small(tmp_path)
    save_state(small.path, 1, small.model, small.optimizer, small.scaler, before)
    with pytest.raises(ValueError, match=f"state.pt is of another run: {message}; ask for the same again"):
        small.load(now)


def test_data_agree_up_to_rounding(tmp_path: Path) -> None:
    small = Small(tmp_path)
    small.save(1)
    save_state(small.path, 1, small.model, small.optimizer, small.scaler, {"data": [[1.0, 2.0], []]})
    assert small.load({"data": [[1.000001, 2.0], [7.0]]}) == 1


@pytest.mark.parametrize(("before", "now"), [(None, True), (True, False), (False, True)])
def test_how_steps_are_computed_is_not_of_the_run(before: bool | None, now: bool, tmp_path: Path) -> None:
    small = Small(tmp_path)
    run = {"optimizer's settings": [{"weight_decay": 0.1, "fused": before}]}
    small.optimizer = torch.optim.AdamW(small.model.parameters(), fused=before)
    small.model(torch.ones(1, 5)).sum().backward()
    small.optimizer.step()
    small.optimizer.zero_grad()
    for parameter in small.model.parameters():
        parameter.data.fill_(1)
    save_state(small.path, 1, small.model, small.optimizer, small.scaler, run)
    small.optimizer = torch.optim.AdamW(small.model.parameters(), fused=now)
    assert small.load({"optimizer's settings": [{"weight_decay": 0.1, "fused": now}]}) == 1
    assert small.optimizer.param_groups[0]["fused"] is now
    small.optimizer.step()
