"""Programs of torch.export and ONNX files: equal to the model, at batches and lengths other than the traced ones."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.export import load_program
from perceiver_io.presets import PRESETS
from tests.small_models import SMALL

ROOT = Path(__file__).parents[2]
# Each takes seconds: of every kind one in `make test`, the others in `make test-slow`.
QUICK = {("program", "language"), ("program", "video-autoencoding"), ("onnx", "language"), ("onnx", "optical-flow")}
CASES: list[Any] = [
    pytest.param(kind, name, marks=[] if (kind, name) in QUICK else [pytest.mark.slow])
    for kind in ("program", "onnx")
    for name in (*PRESETS, "text")
]
# A minute each.
CASES.append(pytest.param("machine-code", "text", marks=pytest.mark.slow))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_exported_models_compute_the_same(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "onnx" and not (find_spec("onnxscript") and find_spec("onnxruntime")):
        pytest.skip("needs onnxscript and onnxruntime: pip install 'perceiver-io-torch[onnx]'")
    if kind == "machine-code" and not shutil.which("g++"):
        pytest.skip("AOTInductor needs a C++ compiler, and there is no g++")
    words = [sys.executable, "-m", "tests.export.export_models", kind, name, str(tmp_path / "exported")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    perceiver_io.save_model(perceiver_io.create_model("imagenet-conv", **SMALL["imagenet-conv"]), tmp_path / "model")
    words = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--to"]
    assert main([*words, "transformers"]) == 2
    assert "cannot compute this model: the convolution stem" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main([*words, "onnx"]) == 2
    assert "exporting to ONNX needs onnxscript; install it with: pip install 'perceiver-io-torch[onnx]'" in (
        capsys.readouterr().err
    )
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*words, "aot-inductor"]) == 2
    assert "AOTInductor needs a C++ compiler, and there is no no-such-compiler" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").touch()
    assert main([*words, "torch-export", "--force"]) == 2
    assert "precious.txt would be lost" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"model.pt2 does not exist; `perceiver-io export"):
        load_program(tmp_path / "out")
    (tmp_path / "out" / "model.pt2").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(ValueError, match=r"model.pt2 is damaged"):
        load_program(tmp_path / "out")
