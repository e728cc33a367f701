"""The benchmark harness at sizes of no meaning: that every number lands where it belongs, not how large it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.measure import Result, RowResult, whole_clip
from benchmarks.neighbour import Slowing, slowing_table
from benchmarks.report import comparison_tables
from benchmarks.rows import ROWS, make_case, make_inputs
from benchmarks.sides import PerceiverPytorch, Reference, Transformers
from benchmarks.worker import Preparation, TaskError, Worker
from tests.benchmarks.tasks import BriefAllocation, Failing

ROOT = Path(__file__).parents[2]


def test_script_measures_our_side_and_names_those_left_out(tmp_path: Path) -> None:
    sides = ["ours", "reference", "perceiver-pytorch"]
    command = [sys.executable, "-m", "benchmarks.compare", "--tiny", "--repeats", "2", "--threads", "1", "--scaling"]
    command += ["--rows", "video-clip", "--sides", *sides]
    command += ["--json", tmp_path / "results.json", "--markdown", tmp_path / "results.md"]
    # Threads that spin while they wait would take the cores from other tests.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr

    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (clip,) = record["rows"]
    assert clip["sides"]["ours"]["preparation"]["outputs"]["image"] == [1, 3, 3, 8, 16]
    assert clip["disturbance"] is None or clip["disturbance"] >= 0
    mine = clip["sides"]["ours"]
    assert len(mine["seconds"]) == 2
    assert 0 < mine["memory"]["baseline"] < mine["memory"]["peak"]
    assert clip["sides"]["reference"]["failure"] == "no checkout given (--reference)"
    assert clip["sides"]["perceiver-pytorch"]["failure"].startswith(("not installed", "does other work"))
    assert record["gemm_gflops"]["torch.mm"] > 0
    assert record["neighbour"] == []
    assert [point["sizes"]["inputs"] for point in record["scaling"]] == [100]

    markdown = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert markdown in done.stdout
    assert "| video, whole clip |" in markdown
    assert "* reference: no checkout given (--reference)\n" in markdown
    for path in (ROOT, tmp_path):
        assert str(path) not in markdown + json.dumps(record)


def test_rows_beside_a_busy_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--tiny", "--neighbour", "--rows", "language-60", "--sides", "ours", "reference"]
    assert compare.main([*arguments, "--repeats", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| language, 60 bytes | ours | " in printed
    assert "| language, 60 bytes | ours-asleep | " in printed
    assert "* reference: no checkout given (--reference) (language, 60 bytes)\n" in printed
    slowing = Slowing(row="row", side="ours", alone=[1.0, 2.0, 9.0], beside=[3.0, 4.0, 5.0])
    assert "| row | ours | 2 s | 4 s | 2.00× |" in slowing_table([slowing])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], r"--threads (0) must be from 1 to the number of cores here"),
        (["--repeats", "0"], r"--repeats (0) must be at least 1"),
        (["--rows", "imagenet"], "invalid choice: 'imagenet'"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
def test_memory_tells_building_from_running() -> None:
    size = 200_000_000
    with Worker(BriefAllocation(size), threads=1) as worker:
        assert worker.prepare().parameters == 5
        assert worker.run() > 0
        memory = worker.memory()
    assert memory.peak > memory.baseline + 0.9 * size
    assert memory.steady is not None
    assert memory.steady < memory.peak - size / 2


def test_failures_in_a_worker_have_their_type() -> None:
    with Worker(Failing(), threads=1) as worker, pytest.raises(TaskError, match="LookupError: no such layer"):
        worker.prepare()
    with Worker(Failing(exit_code=3), threads=1) as worker, pytest.raises(TaskError, match="WorkerDied: exit code 3"):
        worker.prepare()


@pytest.mark.parametrize("script", ["benchmarks.compare", "benchmarks.cuda"])
def test_no_torch_in_the_process_of_another(script: str) -> None:
    code = (  # as `python -m` runs it: a worker imports the main module, too
        f"import sys, {script} as script\n"
        "sys.modules['__main__'] = script\n"
        "import torch, perceiver_io\n"
        "from benchmarks.worker import Worker\n"
        "from tests.benchmarks.tasks import ImportedTorch\n"
        "with Worker(ImportedTorch(), 1) as worker: print(worker.prepare().parameters)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout == "0\n", done.stderr


def test_sides_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(ROWS["imagenet-conv"], tiny=True)
    assert Transformers(case=case).why_not() == "cannot be built at these sizes"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Reference(case=case, checkout=ROOT).why_not() == "not installed (jax, haiku, einops)"
    assert PerceiverPytorch(case=case).why_not() == "not installed (perceiver_pytorch)"


def test_every_row_has_an_input_of_its_sizes() -> None:
    shapes = {
        name: {key: array.shape for key, array in make_inputs(make_case(row, tiny=False)).items()}
        for name, row in ROWS.items()
    }
    assert shapes["language-2048"] == {"tokens": (1, 2048)}
    assert shapes["language-60"] == {"tokens": (1, 60)}
    assert shapes["imagenet-fourier"] == {"images": (1, 3, 224, 224)}
    assert shapes["optical-flow"] == {"frames": (1, 2, 3, 368, 496)}
    clip = {"video": (1, 16, 3, 224, 224), "audio": (1, 30720, 1), "image_points": (6272,), "audio_points": (15,)}
    assert shapes["video-chunk"] == shapes["video-clip"] == clip


def test_whole_clip_is_calculated_from_chunks() -> None:
    measured = {name: Result(seconds=seconds) for name, seconds in (("reference", (1.0, 1.5)), ("many", (3.0, 5.5)))}
    assert whole_clip("reference", measured["reference"], measured, 128).seconds == (128.0, 192.0)
    # 8 chunks more took 2 and 4 seconds; 127 more would take
    one_program = whole_clip("reference-one-program", measured["many"], measured, 128)
    assert one_program.seconds == (1 + 127 / 4, 1.5 + 127 / 2)
    alone = whole_clip("reference-one-program", measured["many"], {}, 128)
    assert alone.failure == "needs the reference: not among the sides"


def test_tables_divide_by_our_median_and_show_failures() -> None:
    preparations = [Preparation(parameters=size, outputs={}, seconds=1.0) for size in (1000, 1100)]
    result = RowResult(
        row=ROWS["imagenet-conv"],
        disturbance=1.25,
        sides={
            "ours": Result(seconds=(2.0, 9.0, 1.0), preparation=preparations[0]),
            "reference": Result(seconds=(5.0,), preparation=preparations[1]),
            "transformers": Result(failure="fails with KeyError: 'x'", error="KeyError"),
        },
    )
    broken = RowResult(row=ROWS["language-60"], sides={"transformers": Result(seconds=(1.0,))})
    markdown = comparison_tables([result, broken], {"slow": 100.0, "fast": 365.0})
    assert "| imagenet-conv | 2 s ± 200% | 5 s (2.50×) | fails (KeyError) |" in markdown
    assert "| imagenet-conv | 365 | 182 | 50% |" in markdown
    assert "* reference: another model, with 1,100 parameters where ours has 1,000 (imagenet-conv)\n" in markdown
    assert "* disturbed: other processes kept up to 1.2 cores busy; " in markdown
    assert "* transformers: fails with KeyError: 'x' (imagenet-conv)\n" in markdown
