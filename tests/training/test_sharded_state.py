"""States whose tensors lie in parts, written and read by a single process; `test_distributed` has several."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.amp import GradScaler

from perceiver_io.training import Lamb
from perceiver_io.training.averaging import AveragedWeights
from perceiver_io.training.sharded_state import ShardWriter
from perceiver_io.training.training_state import load_state, save_state

RUN = {"seed": 3}


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Small:
    """A model in training."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
        self.optimizer = Lamb(self.model.parameters(), lr=0.1)
        self.scaler = GradScaler("cpu", enabled=False)
        self.average = AveragedWeights(self.model, 0.5)

    def train(self, step: int) -> None:
        self.model(torch.randn(7, 5)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(step)

    def save(self, path: Path, step: int, shards: ShardWriter) -> None:
        save_state(path, step, self.model, self.optimizer, self.scaler, RUN, self.average, shards)

    def load(self, path: Path) -> int:
        return load_state(path, self.model, self.optimizer, self.scaler, RUN, self.average)

    def tensors(self) -> list[torch.Tensor]:
        moments = [state["variance"] for state in self.optimizer.state.values()]
        return [
            tensor.clone() for tensor in (*self.model.state_dict().values(), *self.average.values.values(), *moments)
        ]


def saved(path: Path, steps: int) -> list[list[torch.Tensor]]:
    """What was saved at each step; training went on while it was written."""
    small, shards, states = Small(0), ShardWriter(), []
    for step in range(steps):
        small.train(step)
        states.append(small.tensors())
        small.save(path, step + 1, shards)
        small.train(step)
        shards.finish()
        assert not shards.is_busy()
    return states


def test_what_was_there_when_it_began_is_restored(tmp_path: Path) -> None:
    states = saved(tmp_path / "state.pt", 1)
    other = Small(1)
    assert other.load(tmp_path / "state.pt") == 1
    for restored, expected in zip(other.tensors(), states[0], strict=True):
        assert torch.equal(restored, expected)


def test_the_last_two_states_are_kept(tmp_path: Path) -> None:
    saved(tmp_path / "state.pt", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards-2", "shards-3", "state.previous.pt", "state.pt"]


def test_until_it_is_finished_a_state_does_not_count(tmp_path: Path) -> None:
    small, shards = Small(0), ShardWriter()
    small.train(0)
    small.save(tmp_path / "state.pt", 1, shards)
    assert shards.is_busy()
    assert Small(1).load(tmp_path / "state.pt") == 0
    shards.finish()
    assert Small(1).load(tmp_path / "state.pt") == 1


@pytest.mark.parametrize("how", ["cut", "changed", "missing"])
def test_a_damaged_part_is_found_and_the_state_before_takes_the_place(how: str, tmp_path: Path) -> None:
    states = saved(tmp_path / "state.pt", 2)
    part = next((tmp_path / "shards-2").glob("*.distcp"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.unlink() if how == "missing" else part.write_bytes(content if how == "changed" else content[:-5])
    other = Small(1)
    with pytest.warns(UserWarning, match=r"state.pt is damaged \(.*distcp .*; the run goes on from .*, of step 1"):
        assert other.load(tmp_path / "state.pt") == 1
    assert all(map(torch.equal, other.tensors(), states[0]))


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "state.pt", 1)
    other = Small(1)
    other.model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    other.optimizer = Lamb(other.model.parameters(), lr=0.1)
    other.average = AveragedWeights(other.model, 0.5)
    with pytest.raises(ValueError, match=r"state.pt does not fit the model and its optimizer \("):
        other.load(tmp_path / "state.pt")
