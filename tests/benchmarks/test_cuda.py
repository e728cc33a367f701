"""The benchmark of GPUs at sizes of no meaning, on the CPU: that it runs as it is, and where its figures land."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import cuda, cuda_work
from benchmarks.cuda_report import Record, report
from benchmarks.cuda_tasks import LARGE, Cell, Parity, Peak, planned
from benchmarks.worker import TaskError
from tests.benchmarks.tasks import Breakable

CELL = Cell(section="inference", row="language-2048", side="ours", precision="bfloat16", batch=32)


@pytest.mark.slow
def test_script_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_SECONDS_A_CELL", 0)
    words = ["--device", "cpu", "--quick", "--rows", "language-2048", "optical-flow"]
    assert cuda.main([*words, "--json", str(tmp_path / "c.json"), "--markdown", str(tmp_path / "c.md")]) == 0
    record = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert record["peak_flops"]["float32"] > 0
    assert record["parity"].keys() == {"language-2048", "optical-flow"}
    for errors in record["parity"].values():
        assert errors["float32"] <= 1e-5
        assert 0 < errors["bfloat16"] < 0.3
    places = {(c["section"], c["row"], c["side"], c["precision"], c["batch"]) for c in record["cells"]}
    assert ("inference", "optical-flow", "ours, eager", "bfloat16", 2) in places
    assert ("training", "language-2048", "ours, plain", "bfloat16", 2) in places
    assert all(cell["seconds"] > 0 and cell["failure"] is None for cell in record["cells"])
    assert not record["left_out"]
    assert not record["failures"]
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert "--quick" in text
    assert str(tmp_path) not in text


def test_failures_and_what_there_was_no_time_for_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    done = replace(CELL, seconds=0.0125, share=0.4, peak_bytes=2 * 10**9, kept_bytes=10**8, first_call=1.5, batch=1)
    done = replace(done, recordings=1, programs=0)
    record = Record(machine={"device": "card", "processor": "cpu"}, command="command", left_out=["video-clip"])
    record.cells = [done, replace(CELL, failure="OutOfMemoryError: no memory")]
    record.parity, record.failures = (
        {CELL.row: {"bfloat16": 0.01}},
        {str(Parity(CELL.row, "float32")): "ValueError: bad"},
    )
    table = report(record)
    assert "| 12.5 (40%); 2.00 GB, 0.10 kept; 1.5 s; 1 graph, no programs |" in table
    assert "| fails |" in table
    assert "| language, 2048 bytes | – | 1.0e-02 |" in table
    assert "* parity of language-2048, float32: ValueError: bad" in table
    assert "* inference language-2048, ours, bfloat16, batch 32: OutOfMemoryError: no memory" in table
    assert "* no time left: video-clip" in table
    assert cuda.main(["--device", "cpu", "--quick", "--rows", "language-2048", "--budget", "0"]) == 0
    assert "no time left: parity of language-2048, float32" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="--device cuda:99: "):
        cuda.main(["--device", "cuda:99", "--quick"])


def test_failures_of_anything_are_kept_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(cuda.Device):
        def ask(self, request: str, *arguments: Any, timeout: float) -> Any:
            match request, *arguments:
                case ("describe",):
                    return {"device": "card"}
                case ("do", Peak("float32") | Parity(_, "bfloat16"), _):
                    raise TaskError("RuntimeError", "CUDA error\nmore")
                case ("do", Cell() as cell, _):
                    return replace(cell, seconds=1.0)
            return 2.0

    monkeypatch.setattr(cuda, "Device", Failing)
    words = ["--device", "cuda", "--rows", "language-2048", "--json", str(tmp_path / "c.json")]
    assert cuda.main(words) == 1
    record = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert record["peak_flops"] == {"bfloat16": 2.0, "tf32": 2.0}
    assert record["parity"] == {"language-2048": {"float32": 2.0}}
    failures = ["matrix products, float32", "parity of language-2048, bfloat16"]
    assert record["failures"] == dict.fromkeys(failures, "RuntimeError: CUDA error")
    assert all((cell["share"] is None) == (cell["precision"] == "float32") for cell in record["cells"])
    assert "* parity of language-2048, bfloat16: RuntimeError: CUDA error" in capsys.readouterr().out


def test_a_process_goes_on_until_the_device_breaks() -> None:
    with cuda.Device(Breakable) as device:

        def fails(task: str, message: str, timeout: float = 60) -> None:
            with pytest.raises(TaskError, match=message):
                device.ask("do", task, timeout=timeout)

        processes = [device.ask("do", "tell", timeout=60)]
        fails("fail", "^ValueError: first line")
        processes.append(device.ask("do", "tell", timeout=60))
        assert processes[0] == processes[1]
        for task, message in (("break", "illegal memory"), ("die", "WorkerDied: exit code 3"), ("hang", "no answer")):
            fails(task, message, timeout=1 if task == "hang" else 60)
            processes.append(device.ask("do", "tell", timeout=60))
        assert len(set(processes)) == 4


def test_what_has_a_goal_comes_first_by_its_best_way() -> None:
    options = {"is_cuda": True, "is_quick": False, "has_transformers": True}
    tasks = list(planned(LARGE, **options, has_reference=True))
    assert len(set(tasks)) == len(tasks)
    cells = [task for task in tasks if isinstance(task, Cell)]
    assert [cell.side for cell in cells[:15]] == ["ours, compiled"] * 15
    assert [cell.section for cell in cells[:15]] == ["inference"] * 13 + ["training"] * 2
    assert {cell.row for cell in cells[:13]} == set(LARGE)
    assert [(cell.row, cell.precision, cell.batch) for cell in cells if cell.side == "reference"] == [
        ("language-2048", precision, batch) for precision in ("bfloat16", "tf32", "float32") for batch in (1, 32)
    ]
    asked = {(cell.section, cell.side, cell.precision, cell.row, cell.batch) for cell in cells}
    for section, side, precision, row, batch in asked:  # nothing is slower than transformers
        if side == "transformers":
            assert (section, "ours", precision, row, batch) in asked
    without = planned(LARGE, **options, has_reference=False)
    assert [task for task in tasks if not isinstance(task, Cell) or task.side != "reference"] == list(without)


def test_the_reference_without_its_checkout_is_a_failure() -> None:
    arguments = argparse.Namespace(quick=True, device="cpu", reference=Path("none"))
    try:
        failure = cuda._reference(replace(CELL, side="reference", batch=2), arguments, 60).failure
    except TaskError as error:  # with JAX
        failure = str(error)
    assert failure is not None


class OnAnything(cuda_work.OnDevice):
    """The CPU as a card."""

    def __init__(self) -> None:
        super().__init__("cpu", is_quick=True)
        self._is_cuda = True


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the card says of its memory."""
    said = SimpleNamespace(allocated=7, reserved=iter((100, 130)), forgotten=0)

    def forget(device: torch.device) -> None:
        said.forgotten += 1

    functions = {
        "synchronize": lambda device: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": forget,
        "memory_reserved": lambda device: next(said.reserved),
        "max_memory_allocated": lambda device: said.allocated,
    }
    for name, function in functions.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return said


def test_a_cell_says_what_it_kept_and_made(memory: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    cell = OnAnything().do(replace(CELL, side="ours, compiled", batch=2), 0.0)
    assert (cell.peak_bytes, cell.kept_bytes, cell.recordings, cell.programs) == (7, 30, 0, 0)
    assert memory.forgotten == 1
    assert cell.seconds is not None and cell.seconds > 0


def test_what_precision_products_have_is_told_to_torch() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for precision in ("tf32", "float32"):
            cuda_work.OnDevice("cpu", is_quick=True).do(Peak(precision), 0.0)
            assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_first_call_records_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    graph = SimpleNamespace(replay=lambda: calls.append("replay"))
    monkeypatch.setattr(cuda_work._Recorded, "_record", lambda self: (self._step(), graph)[1])
    run = cuda_work._Recorded(lambda: calls.append("step"))
    assert not calls
    run()
    run()
    assert calls == ["step", "replay", "replay"]
