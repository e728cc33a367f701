"""What an installed package has to have."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
# Everything that a build reads.
FILES = ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"]


def test_every_directory_with_code_is_a_package() -> None:
    directories = {path.parent.relative_to(ROOT) for path in (ROOT / "perceiver_io").rglob("*.py")}
    packages = find_packages(str(ROOT), include=["perceiver_io", "perceiver_io.*"])
    assert sorted(".".join(path.parts) for path in directories) == sorted(packages)


def test_importing_the_library_brings_only_what_it_must() -> None:
    """Importing it is then as fast as importing torch; a process of its own, as the tests import much more."""
    script = """
import sys, torch
before = set(sys.modules)
import perceiver_io
new = {name.partition(".")[0] for name in sys.modules.keys() - before} - set(sys.stdlib_module_names)
print(*new, *{"torch._dynamo", "torch._inductor"} & set(sys.modules))
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    # Small parts of torch; and jaxtyping draws error messages with wadler_lindig, in some versions at import.
    assert set(printed.stdout.split()) - {"torch", "wadler_lindig"} == {
        "einops",
        "jaxtyping",
        "numpy",
        "perceiver_io",
        "safetensors",
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, made from a copy of what a build reads."""
    folder = tmp_path_factory.mktemp("build")
    source, distributions = folder / "source", folder / "distributions"
    source.mkdir()
    for name in [*FILES, "constraints.txt"]:
        shutil.copy(ROOT / name, source)
    for name in ("perceiver_io", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "pytorch_checkpoints",
        source / "pytorch_checkpoints",
        ignore=lambda parent, names: [
            n for n in names if Path(parent).name == "pytorch_checkpoints" and n[:5] != "tiny-"
        ],
    )
    shutil.copy(ROOT / "pytorch_checkpoints" / "README.md", source / "pytorch_checkpoints")
    for name in ("tiny-model", "language"):  # one that is bundled, and one that a user has converted
        (source / "pytorch_checkpoints" / name).mkdir()
        for file in ("config.json", "model.safetensors", "training.json", "loss.png"):
            (source / "pytorch_checkpoints" / name / file).touch()
    distributions.mkdir()
    _build(source, distributions, "build_wheel", "build_sdist")
    return distributions


def _build(source: Path, destination: Path, *kinds: str) -> None:
    """Builds as pip does, with the setuptools that is installed (torch needs one)."""
    calls = "; ".join(f"build_meta.{kind}({str(destination)!r})" for kind in kinds)
    script = f"from setuptools import build_meta; {calls}"
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True)


def _wheel_names(distributions: Path) -> set[str]:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_contents_of_the_wheel(built: Path) -> None:
    files = [path for path in (ROOT / "perceiver_io").rglob("*.*") if "__pycache__" not in path.parts]
    names = _wheel_names(built)
    assert {str(path.relative_to(ROOT)) for path in files} <= names
    assert "perceiver_io/py.typed" in names
    assert {f"perceiver_io/samples/{name}" for name in ("balloon.jpg", "balloon.mp4", "sentence.txt")} <= names
    assert {name for name in names if name.startswith("perceiver_io/pytorch_checkpoints/tiny-model/")} == {
        f"perceiver_io/pytorch_checkpoints/tiny-model/{name}"
        for name in ("config.json", "model.safetensors", "training.json")
    }
    assert not {name for name in names if name.startswith("perceiver_io/pytorch_checkpoints/language")}
    assert {name.partition("/")[0] for name in names} == {"perceiver_io"}


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert all((source / name).is_file() for name in FILES)
    (tmp_path / "again").mkdir()
    _build(source, tmp_path / "again", "build_wheel")
    assert _wheel_names(tmp_path / "again") == _wheel_names(built)


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """The core, with no extra, from a directory that is not the checkout; installs torch, so it needs the network."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (wheel,) = built.glob("*.whl")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel]
    (tmp_path / "empty").mkdir()

    def run(*arguments: str | Path) -> str:
        result = subprocess.run([python, *arguments], cwd=tmp_path / "empty", capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(*install)
    run("-m", "pip", "check")
    run(
        "-c",
        "import torch, perceiver_io; from perceiver_io import media, processors, visualize, weights;"
        "assert 'site-packages' in perceiver_io.__file__;"
        "model = perceiver_io.create_model('language', num_self_attends_per_block=1, num_latents=8);"
        "assert model(torch.randint(262, (1, 60))).shape == (1, 60, 262);"
        "assert weights.sample('sentence.txt').read_text();"
        "assert [path.name for path in weights.bundled_models()].count('tiny-model') == 1",
    )
    assert run("-m", "perceiver_io", "--version").startswith("perceiver-io ")
    assert "--url" in run("-m", "perceiver_io", "download", "--help")
    (tmp_path / "empty" / "user.py").write_text(
        "import perceiver_io\nmodel: int = perceiver_io.create_model('language')\n", encoding="utf-8"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "user.py"],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
    )
    assert 'expression has type "PerceiverIO", variable has type "int"' in checked.stdout


def test_hints_name_this_distribution() -> None:
    """PyPI's "perceiver-io" is another project: nobody should be sent there."""
    assert 'name="perceiver-io-torch"' in (ROOT / "setup.py").read_text(encoding="utf-8")
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if inside[0].startswith((".", "build")) or path.suffix not in (".py", ".md", ".ipynb", ".yml", ".html"):
            continue
        text = path.read_text(encoding="utf-8")
        hints = re.findall(r"pip install[^\n`]*?\b(perceiver[-_]io[\w-]*)", text)
        assert set(hints) <= {"perceiver-io-torch"}, f"{path}: {hints}"
