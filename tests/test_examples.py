"""The examples run on their samples, and give one line for what a user can mend.

What they compute is tested with the commands whose code they share (tests/commands).
"""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RESULTS = {
    "image_classification": {"png"},
    "masked_language_modelling": {"png", "txt"},
    "optical_flow": {"png", "flo"},
    "video_autoencoding": {"mp4", "wav"},
    "generate": {"txt"},
}


@pytest.fixture(params=RESULTS)
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """An example's module, run from an empty directory."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(request.param)


def test_examples_run_on_their_samples(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--output", "here"])
    assert "wrote here" in capsys.readouterr().out
    name = example.__name__
    assert {path.name for path in (tmp_path / "here").iterdir()} == {f"{name}.{end}" for end in RESULTS[name]}


def test_mistakes_are_one_line(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        example.main(["--checkpoint", "nowhere"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_they_are_scripts() -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "optical_flow.py", "--help"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("usage: optical_flow.py")


def test_the_library_needs_none_of_the_examples_packages() -> None:
    # tqdm is not in the list: torch imports it where it is installed.
    command = (
        "import sys, perceiver_io.media, perceiver_io.visualize, perceiver_io.processors, perceiver_io.commands.cli;"
        "print(sorted({'PIL', 'av', 'matplotlib', 'cv2', 'jax'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
