"""The benchmark of GPUs at sizes of no meaning, on the CPU: that it runs as it is, and where its figures land."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import cuda


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
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert "--quick" in text
    assert str(tmp_path) not in text


def test_failures_and_what_there_was_no_time_for_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    cell = cuda.Cell(section="inference", row="language-2048", side="ours", precision="bfloat16", batch=32)
    done = cuda.replace(cell, seconds=0.0125, share=0.4, peak_bytes=2 * 10**9, first_call=1.5, batch=1)
    failed = cuda.replace(cell, failure="OutOfMemoryError: no memory")
    table = cuda.report({"device": "card", "processor": "cpu"}, "command", {}, {}, [done, failed], ["video-clip"])
    assert "| 12.5 (40%); 2.00 GB; 1.5 s |" in table
    assert "| fails |" in table
    assert "* language-2048, ours, bfloat16, batch 32: OutOfMemoryError: no memory" in table
    assert "* no time left: video-clip" in table
    assert cuda.main(["--device", "cpu", "--quick", "--rows", "language-2048", "--budget", "0"]) == 0
    assert "no time left: parity of language-2048" in capsys.readouterr().out


def test_what_runs_when_the_time_is_up_is_given_up() -> None:
    budget = cuda.Budget(0.05)
    with budget.interrupting("a long one"):
        time.sleep(60)
    assert budget.left_out == ["a long one"]
    assert not budget.allows("another")
    done = []
    with cuda.Budget(60).interrupting("a short one"):
        done.append(True)
    assert done


def test_the_reference_is_planned_where_it_is_given() -> None:
    cases = {"language-2048": cuda.make_case(cuda.ROWS["language-2048"], True)}
    arguments = cuda._parser().parse_args(["--quick", "--device", "cpu", "--reference", "checkout"])
    cells = list(cuda.planned(cases, cuda.Device("cpu"), arguments))
    precisions = [cell.precision for cell in cells if cell.side == "reference"]
    assert precisions == ["float32", "float32", "tf32", "tf32", "bfloat16", "bfloat16"]
    failed = cuda._measured(cells[-1], cases["language-2048"], cuda.Device("cpu"), cuda.Budget(60), Path("none"))
    assert failed.failure is not None
