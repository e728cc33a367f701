"""`perceiver-io mlm`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., str]
RunJson = Callable[..., dict[str, Any]]


def test_a_text_is_filled_in(run: Run, checkpoints: dict[str, Path]) -> None:
    printed = run("mlm", "--checkpoint", checkpoints["mlm"], "--text", "Brot, [MASK]utter", "--mask", "tt")
    model = f"model: {checkpoints['mlm']}\n"
    assert printed.startswith(f"{model}masked: Brot, [MASK]u[MASK][MASK]er\nfilled: Brot, ")
    assert printed.count("\nbyte ") == 3
    assert printed.count("%") == 15
    assert sorted(file.name for file in Path("outputs").iterdir()) == [
        "masked_language_modelling.png",
        "masked_language_modelling.txt",
    ]
    report = Path("outputs/masked_language_modelling.txt").read_text(encoding="utf-8")
    # Bytes that are no text are shown as such, in the file as they are.
    assert (
        printed
        == f"{model}{report}wrote outputs/masked_language_modelling.png, outputs/masked_language_modelling.txt\n"
    )


def test_json_holds_the_same(run_json: RunJson, checkpoints: dict[str, Path], inputs: Path) -> None:
    result = run_json("mlm", "--checkpoint", checkpoints["mlm"], "--file", inputs / "text.txt", "--output", "here.svg")
    assert result["masked"] == "Täglich [MASK][MASK]ot"
    assert result["filled"].startswith("Täglich ")
    assert [byte["position"] for byte in result["masked_bytes"]] == [9, 10]
    best = result["masked_bytes"][0]["candidates"]
    assert len(best) == 5
    assert best == sorted(best, key=lambda one: -one["probability"])
    assert result["files"] == ["here.svg", "here.txt"]
    assert all(Path(file).is_file() for file in result["files"])


def test_text_alone_needs_no_extras(
    run_json: RunJson, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run_json("mlm", "--checkpoint", checkpoints["mlm"], "--text", "[MASK]", "--output", "here.txt")
    assert result["files"] == ["here.txt"]


def test_long_texts_are_cut_around_the_mask(
    run_json: RunJson, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json("mlm", "--checkpoint", checkpoints["mlm"], "--text", "abcdefghijkl[MASK]mnopqrstuvwxyz")
    assert result["masked"] == "efghijkl[MASK]mnopqrst"


def test_the_sample_is_filled_in_by_the_bundled_model(run_json: RunJson) -> None:
    result = run_json("mlm")
    assert result["masked"].startswith("This module defines")
    assert len(result["masked_bytes"]) == 11
