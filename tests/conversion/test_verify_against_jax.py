"""`verify_against_jax.py` as a user runs it: against the official code where there is one, and on mistakes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conversion.verification import SMALL, Difference, _compare
from conversion.verify_against_jax import main
from perceiver_io.presets import PRESETS

SCRIPT = Path(__file__).parents[2] / "conversion" / "verify_against_jax.py"
ARGUMENTS = ["--reference", ".", "--model", "video-autoencoding", "--small"]
REFERENCE = os.environ.get("PERCEIVER_REFERENCE")
MISSING = [name for name in ("jax", "haiku", "einops") if importlib.util.find_spec(name) is None]
OUTPUTS = {
    "language": ["logits"],
    "imagenet-learned": ["logits"],
    "imagenet-fourier": ["logits"],
    "imagenet-conv": ["logits"],
    "optical-flow": ["flow"],
    "video-autoencoding": ["audio", "image", "label"],
}

needs_reference = pytest.mark.skipif(
    REFERENCE is None,
    reason="PERCEIVER_REFERENCE names no checkout of google-deepmind/deepmind-research",
)
needs_jax = pytest.mark.skipif(
    bool(MISSING), reason=f"the reference needs {', '.join(MISSING)}; `pip install -e .[parity]` brings them"
)


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@needs_reference
@needs_jax
@pytest.mark.parametrize("preset", OUTPUTS)
def test_small_model_agrees_with_the_official_code(preset: str) -> None:
    result = _run("--reference", str(REFERENCE), "--model", preset, "--small")
    assert result.returncode == 0, result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if " max " in line]
    assert [line.split(":")[0] for line in verdicts] == [f"{preset} {name}" for name in OUTPUTS[preset]]
    assert all(line.endswith(": ok") for line in verdicts)


@needs_reference
@needs_jax
def test_a_difference_past_the_tolerance_fails() -> None:
    result = _run("--reference", str(REFERENCE), "--model", "language", "--small", "--tolerance", "1e-12")
    assert result.returncode == 1
    assert result.stdout.rstrip().endswith(": FAIL")


@needs_reference
@needs_jax
def test_a_checkpoint_of_another_model_is_refused() -> None:
    golden = Path(__file__).parents[1] / "data" / "golden" / "models" / "optical_flow.pystate"
    result = _run("--reference", str(REFERENCE), "--model", "language", "--checkpoint", golden)
    assert result.returncode == 2
    assert "optical_flow.pystate does not fit language: basic_decoder/cross_attention" in result.stderr
    assert "is absent and must be" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --reference, --model"),
        (["--reference", ".", "--model", "resnet"], "invalid choice: 'resnet'"),
        (["--reference", "nowhere", "--model", "language"], "nowhere has no perceiver/perceiver.py; give a checkout"),
        (
            ["--reference", ".", "--model", "language", "--small", "--checkpoint", "x.pystate"],
            "--checkpoint has the released sizes and --small others; leave one out",
        ),
        (["--reference", ".", "--model", "language", "--tolerance", "-1"], "--tolerance (-1.0) must be positive"),
    ],
)
def test_mistaken_arguments_exit_with_2(arguments: list[str], message: str) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")


def test_a_checkout_without_haiku_says_what_to_install(tmp_path: Path) -> None:
    """Also what a user without JAX sees: the checkout is found, and what it imports is not there."""
    folder = tmp_path / "perceiver"
    folder.mkdir()
    (folder / "perceiver.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "haiku.py").touch()
    for path in (tmp_path, folder):  # the checkout, or its folder
        result = _run("--reference", path, "--model", "language", "--small")
        assert result.returncode == 2
        assert "the reference needs a_module_that_nobody_has, which is not installed" in result.stderr


@pytest.mark.parametrize(("largest", "code", "end"), [(3e-7, 0, "ok"), (3e-4, 1, "FAIL"), (float("nan"), 1, "FAIL")])
def test_verdicts(
    largest: float,
    code: int,
    end: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    differences = {
        "audio": Difference(largest=1e-7, mean=1e-8, std=1.5, agrees=True),
        "image": Difference(largest=largest, mean=largest, std=0.5, agrees=largest <= 2e-5),
    }
    monkeypatch.setattr("conversion.verify_against_jax.verify", lambda *_, **__: differences)
    assert main(ARGUMENTS) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "video-autoencoding audio: max 1.00e-07 mean 1.00e-08 of std 1.5: ok"
    assert lines[1].startswith("video-autoencoding image: max ")
    assert lines[1].endswith(f": {end}")
    assert main([*ARGUMENTS, "--json"]) == code
    result = json.loads(capsys.readouterr().out)
    assert result["agrees"] == (code == 0)
    assert result["outputs"]["image"]["largest"] == (largest if largest == largest else None)


def test_differences_are_in_standard_deviations() -> None:
    expected = np.array([1.0, 5.0])  # of standard deviation 2
    difference = _compare(expected, np.array([1.0, 5.5]), tolerance=0.2)
    assert difference == Difference(largest=0.25, mean=0.125, std=2.0, agrees=False)
    assert _compare(expected, np.array([1.0, 5.5]), tolerance=0.25).agrees
    assert not _compare(expected, np.array([1.0, float("nan")]), tolerance=0.25).agrees


def test_every_preset_has_small_sizes() -> None:
    assert set(SMALL) == set(PRESETS)
