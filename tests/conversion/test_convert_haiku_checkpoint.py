"""The conversion script: what it writes and prints, and what it says of files that it cannot convert."""

import gzip
import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

import perceiver_io
from conversion.convert_haiku_checkpoint import main
from perceiver_io.weights.haiku_conversion import haiku_shapes
from perceiver_io.weights.pystate import read_pystate
from tests.golden import GOLDEN_DIR, Case
from tests.parity.test_models import preset_of

MODELS = GOLDEN_DIR / "models"


@pytest.fixture
def language(tmp_path: Path) -> list[str]:
    """Arguments that convert the small golden language model."""
    config = tmp_path / "overrides.json"
    config.write_text(json.dumps(preset_of(Case.load(MODELS / "language.npz"))[1]))
    source = shutil.copy(MODELS / "language.pystate", tmp_path / "language.pystate")
    return [str(source), str(tmp_path / "converted"), "--model", "language", "--config", str(config)]


def test_report_and_metadata(language: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(language) == 0
    sha256 = hashlib.sha256(Path(language[0]).read_bytes()).hexdigest()
    model = perceiver_io.load_model(tmp_path / "converted")
    num_parameters = sum(p.numel() for p in model.parameters())
    printed = capsys.readouterr().out
    assert f"converted language.pystate (sha256 {sha256})" in printed
    assert f"{len(model.state_dict())} tensors, {num_parameters:,} parameters, preset language" in printed
    expected = {
        "library_version": perceiver_io.__version__,
        "source": "language.pystate",
        "source_sha256": sha256,
        "preset": "language",
    }
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["metadata"] == expected
    with safetensors.safe_open(tmp_path / "converted" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", **expected}


def test_pth_format_holds_the_same(language: list[str], tmp_path: Path) -> None:
    assert main(language) == 0
    language[1] = str(tmp_path / "as_pth")
    assert main([*language, "--format", "pth"]) == 0
    assert sorted(path.name for path in (tmp_path / "as_pth").iterdir()) == ["config.json", "model.pth"]
    states = [perceiver_io.load_model(tmp_path / name).state_dict() for name in ("converted", "as_pth")]
    torch.testing.assert_close(dict(states[0]), dict(states[1]), rtol=0, atol=0)


def test_files_that_are_no_model_are_kept(
    language: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "precious.txt").write_text("mine")
    for options in ([], ["--force"]):
        assert main([*language, *options]) == 2
        assert "already exists and precious.txt would be lost; choose another name or" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "converted").iterdir()] == ["precious.txt"]


def test_force_replaces_a_model(language: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(language) == 0
    assert main(language) == 2
    assert "config.json, model.safetensors would be lost; choose another name or ask to overwrite" in (
        capsys.readouterr().err
    )
    assert main([*language, "--force", "--format", "pth"]) == 0
    assert sorted(path.name for path in (tmp_path / "converted").iterdir()) == ["config.json", "model.pth"]


def overwrite(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


def save_tree(change: Any) -> Any:
    """Rewrites the file as a plain pickle after a change to its nested tree."""

    def write(path: Path) -> None:
        tree: dict[str, dict[str, Any]] = {}
        for name, array in read_pystate(path).params.items():
            module, leaf = name.rsplit("/", 1)
            tree.setdefault(module, {})[leaf] = array
        change(tree)
        path.write_bytes(pickle.dumps(tree))

    return write


class Marker:
    """Pickles as a call that would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path(self.path).touch, ()


BROKEN = {
    "empty": (overwrite(b""), "empty"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "gzip"),
    "not a pickle": (overwrite(b"hello, this is text\n" * 10), "not a pickle"),
    "missing tensor": (save_tree(lambda t: t["embedding_decoder"].pop("bias")), "missing in the checkpoint (1)"),
    "extra tensor": (
        save_tree(lambda t: t["embedding_decoder"].update(more=np.ones(3))),
        "left over in the checkpoint (1): embedding_decoder/more",
    ),
    "other shape": (
        save_tree(lambda t: t["embedding_decoder"].update(bias=np.ones(9, np.float32))),
        "embedding_decoder/bias has shape (9,), which does not fit preset 'language': output_postprocessor.bias",
    ),
    "other rank": (
        save_tree(lambda t: t["embed"].update(embeddings=np.ones(9, np.float32))),
        "embed/embeddings has shape (9,)",
    ),
    "integers": (
        save_tree(lambda t: t["embedding_decoder"].update(bias=np.ones(262, np.int32))),
        "embedding_decoder/bias has dtype int32, which does not fit output_postprocessor.bias",
    ),
    "a list": (overwrite(pickle.dumps([1, 2, 3])), "list"),
    "a function": (overwrite(pickle.dumps({"a": {"b": len}})), "builtins.len"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, language: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = BROKEN[name]
    damage(Path(language[0]))
    before = sorted(tmp_path.iterdir())
    assert main(language) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_in_a_hostile_file_runs(language: list[str], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    Path(language[0]).write_bytes(pickle.dumps({"m": {"w": Marker(str(marker))}}))
    assert main(language) == 2
    assert not marker.exists()


def test_a_wrong_preset_is_told_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = haiku_shapes(perceiver_io.create_config("video-autoencoding"))
    tree: dict[str, dict[str, Any]] = {}
    for name, shape in shapes.items():
        module, leaf = name.rsplit("/", 1)
        tree.setdefault(module, {})[leaf] = np.zeros(shape, np.float32)
    source = tmp_path / "video.pystate"
    source.write_bytes(pickle.dumps(tree, protocol=4))
    assert main([str(source), str(tmp_path / "out"), "--model", "optical-flow"]) == 2
    error = capsys.readouterr().err
    assert "does not fit preset 'optical-flow'; it fits --model video-autoencoding" in error
    assert "missing in the checkpoint" in error
    assert "flow_decoder/~/basic_decoder/output/w" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object of config fields, not list"),
        ('{"layers": 3}', "LanguageConfig has no field layers"),
        ('{"num_latents": "many"}', "num_latents ('many') must be a positive integer"),
    ],
)
def test_wrong_overrides(
    content: str, message: str, language: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.unchecked import unchecked

    (tmp_path / "overrides.json").write_text(content)
    with unchecked():
        assert main(language) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(language: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(language[0]).unlink()
    assert main(language) == 2
    assert "language.pystate" in capsys.readouterr().err


def test_a_full_disk(
    language: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    before = sorted(tmp_path.iterdir())
    assert main(language) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
