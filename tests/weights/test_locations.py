"""The models and samples that come with the library, and the directory of downloads."""

from pathlib import Path

import pytest

import perceiver_io
from perceiver_io.weights import locations
from perceiver_io.weights.locations import bundled_model, bundled_models, cache_directory, sample
from tests.small_models import SMALL


@pytest.fixture(params=["installed", "in a checkout"])
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one bundled model and one sample, laid out in both ways."""
    package = tmp_path / "perceiver_io"
    package.mkdir()
    installed = request.param == "installed"
    model = perceiver_io.create_model("language", **SMALL["language"])
    models = (package if installed else tmp_path) / "pytorch_checkpoints"
    perceiver_io.save_model(model, models / "tiny-language")
    perceiver_io.save_model(model, models / "my-own")
    (models / "tiny-unfinished").mkdir()
    samples = package / "samples" if installed else tmp_path / "examples" / "samples"
    samples.mkdir(parents=True)
    for name in ("balloon.jpg", "README.md", "make_samples.py"):
        (samples / name).touch()
    monkeypatch.setattr(locations, "_PACKAGE", package)
    return package


def test_models(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [path.name for path in bundled_models()] == ["tiny-language"]
    assert bundled_model("tiny-language") == bundled_models()[0]
    for name in ("my-own", "tiny-unfinished", "", "..", "tiny-language/../my-own"):
        assert bundled_model(name) is None
    monkeypatch.chdir(tmp_path)
    assert perceiver_io.load_model("tiny-language").config.max_seq_len == SMALL["language"]["max_seq_len"]
    with pytest.raises(
        FileNotFoundError, match=r"there is no directory tiny; .* are the bundled tiny-language and the"
    ):
        perceiver_io.load_model("tiny")


def test_samples(package: Path) -> None:
    assert sample("balloon.jpg").is_file()
    for name in ("README.md", "../samples/balloon.jpg", "dog.jpg", ""):
        with pytest.raises(FileNotFoundError, match=r"there is no sample '.*'; samples are balloon.jpg$"):
            sample(name)


def test_what_this_checkout_has() -> None:
    assert {sample(name).name for name in ("balloon.jpg", "balloon.mp4", "frame_1.png", "frame_2.png", "sentence.txt")}
    for directory in bundled_models():
        assert perceiver_io.load_model(directory.name).config == perceiver_io.load_model(directory).config


def test_a_missing_model_without_any_bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locations, "_PACKAGE", tmp_path / "perceiver_io")
    with pytest.raises(FileNotFoundError, match=r"bundled \(none here\) and the released language, .*`perceiver-io"):
        perceiver_io.load_model("some/where")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/home/me/.cache/perceiver_io"),
        ({"XDG_CACHE_HOME": "/var/caches"}, "/var/caches/perceiver_io"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/perceiver_io"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/perceiver_io"),
        ({"PERCEIVER_IO_CACHE": "~/models", "XDG_CACHE_HOME": "/var/caches"}, "/home/me/models"),
        ({"PERCEIVER_IO_CACHE": "here"}, "here"),
        ({"PERCEIVER_IO_CACHE": ""}, "/home/me/.cache/perceiver_io"),
    ],
)
def test_cache_directory(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERCEIVER_IO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)
