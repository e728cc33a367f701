"""The walk through the samples: going on after a kill, in any number of processes, exactly."""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from perceiver_io.evaluation import progress, results_of, worst
from perceiver_io.evaluation.results import identity_of
from perceiver_io.weights.locations import find_model
from tests.evaluation.small_protocol import NUMBER, NumbersProtocol, Times, measure

# Children that need not import everything anew.
FORK = multiprocessing.get_context("fork")


def share(rank: int, directory: Path) -> None:
    """One of two processes."""
    torch.distributed.init_process_group("gloo", f"file://{directory}/store", rank=rank, world_size=2)
    torch.save(measure(directory).outcomes, directory / f"outcomes-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_a_killed_evaluation_goes_on_to_the_same_outcomes(tmp_path: Path) -> None:
    whole = measure(tmp_path / "whole")
    assert whole.outcomes.shape == (NUMBER, 2)
    with pytest.raises(RuntimeError, match="killed"):
        measure(tmp_path / "killed", Times(batches=2))
    file = tmp_path / "killed" / "outcomes" / "0.jsonl"
    with file.open("a") as lines:
        lines.write('{"batch": 2, "outco')  # the line that it died at
    model = Times(batches=4)  # of six, two are done
    assert torch.equal(measure(tmp_path / "killed", model).outcomes, whole.outcomes)
    assert model.batches == 0
    assert torch.equal(measure(tmp_path / "killed", Times(batches=0)).outcomes, whole.outcomes)
    assert file.read_text() == (tmp_path / "whole" / "outcomes" / "0.jsonl").read_text()


def test_an_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    class Interrupted(Times):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if self.batches == 998:
                raise KeyboardInterrupt
            return super().forward(values)

    with pytest.raises(KeyboardInterrupt, match="outcomes holds what is done, and the same command goes on from it"):
        measure(tmp_path, Interrupted())
    assert len((tmp_path / "outcomes" / "0.jsonl").read_text().splitlines()) == 1 + 2


def test_processes_that_load_samples_change_nothing(tmp_path: Path) -> None:
    outcomes = [measure(tmp_path / str(workers), num_workers=workers).outcomes for workers in (0, 2)]
    assert torch.equal(*outcomes)


def test_two_processes_find_what_one_does_and_finish_what_one_began(tmp_path: Path) -> None:
    whole = measure(tmp_path / "whole").outcomes
    with pytest.raises(RuntimeError, match="killed"):
        measure(tmp_path / "shared", Times(batches=1))
    processes = [FORK.Process(target=share, args=(rank, tmp_path / "shared")) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for rank in (0, 1):
        assert torch.equal(torch.load(tmp_path / "shared" / f"outcomes-{rank}.pt"), whole)
    shares = [len((tmp_path / "shared" / "outcomes" / f"{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)]
    assert shares == [1 + 1 + 3, 1 + 2]  # the first lines, what was there, and five batches in turn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5}, "its batch size is 4 and not 5; choose another --output, or remove it"),
        ({"batch_size": 0}, r"batch size \(0\) must be at least 1"),
    ],
)
def test_outcomes_of_another_evaluation_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    measure(tmp_path)
    with pytest.raises(ValueError, match=message):
        measure(tmp_path, **options)


def test_damaged_outcomes_are_named(tmp_path: Path) -> None:
    measure(tmp_path)
    (tmp_path / "outcomes" / "0.jsonl").write_text("{}\n[")
    with pytest.raises(ValueError, match="its protocol is None and not 'numbers'"):
        measure(tmp_path)
    (tmp_path / "outcomes" / "0.jsonl").write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"0\.jsonl is damaged"):
        measure(tmp_path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_samples_that_cannot_be_read(num_workers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number 9 is damaged; mend it and begin anew, or go on without"):
        measure(tmp_path, unreadable=(9, 11), num_workers=num_workers)
    found = measure(tmp_path, unreadable=(9, 11), num_workers=num_workers, skip_unreadable=True)
    assert found.unreadable == {9: "number 9 is damaged", 11: "number 11 is damaged"}
    assert found.indices == [index for index in range(NUMBER) if index not in (9, 11)]
    assert torch.equal(found.outcomes, measure(tmp_path / "all").outcomes[found.indices])
    # The next run tries again.
    found = measure(tmp_path, unreadable=(11,), num_workers=num_workers, skip_unreadable=True)
    assert found.unreadable == {11: "number 11 is damaged"}
    assert measure(tmp_path, num_workers=num_workers).indices == list(range(NUMBER))
    with pytest.raises(ValueError, match="no sample of 23 can be read; the first: number 0 is damaged"):
        measure(tmp_path / "none", unreadable=tuple(range(NUMBER)), skip_unreadable=True)


def test_results_can_be_cited(tmp_path: Path) -> None:
    protocol, found = NumbersProtocol(), measure(tmp_path, unreadable=(0,), skip_unreadable=True)
    identity = identity_of(protocol, "numbers", "tiny-language")
    result = results_of(protocol, found, identity, command="as typed")
    assert result["figures"] == {"mean": pytest.approx(float(found.outcomes[:, 1].mean())), "unbounded": None}
    assert (result["samples"], result["unreadable"]["number"], result["command"]) == (NUMBER - 1, 1, "as typed")
    weights = (find_model("tiny-language") / "model.safetensors").read_bytes()
    assert result["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert result["versions"]["torch"] == torch.__version__
    json.dumps(result, allow_nan=False)
    order = worst(protocol, found, 3)
    assert order == [found.indices[place] for place in found.outcomes[:, 0].argsort(descending=True)[:3]]


def test_progress_is_told_now_and_then_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(tmp_path / "short")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    measure(tmp_path / "long")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" samples, ")[0] for line in lines] == [f"{n} of 23" for n in (4, 8, 12, 16, 20, 23)]
    assert all(line.endswith(" a second") for line in lines)
