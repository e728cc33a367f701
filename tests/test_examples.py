"""The examples run on their samples with small models and checkpoints, and give one line for what a user can mend."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import perceiver_io
from perceiver_io.inputs import read_audio, read_flo, read_video, write_gif, write_wav

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["image_classification", "masked_language_modelling", "optical_flow", "video_autoencoding"]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, ModuleType]:
    """The example modules, run from an empty directory."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return {name: importlib.import_module(name) for name in NAMES}


def results(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def error_of(module: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an example ends with, having left no results."""
    with pytest.raises(SystemExit) as ended:
        module.main(["--output", "failed", *arguments])
    assert ended.value.code == 2
    assert not list(Path("failed").glob("*")) + list(Path("failed").glob(".*"))
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_masked_language_modelling(
    examples: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples["masked_language_modelling"].main([])
    output = capsys.readouterr()
    assert "small, randomly initialised model" in output.err
    assert "shines like[MASK][MASK]" in output.out
    assert results(tmp_path / "outputs") == {f"masked_language_modelling.{end}" for end in ("png", "txt")}
    report = (tmp_path / "outputs" / "masked_language_modelling.txt").read_text(encoding="utf-8")
    assert report.startswith("masked: The balloon rises")
    assert report.count("\nbyte ") == 7


def test_masking_a_phrase_covers_all_its_bytes(examples: dict[str, ModuleType]) -> None:
    tokens = examples["masked_language_modelling"].tokenize("ein schöner Tag[MASK]", [" schöner"])
    assert (tokens == 3).tolist() == [False] * 3 + [True] * 9 + [False] * 4 + [True]


@pytest.mark.parametrize(("masked", "start"), [((0, 3), 0), ((20, 24), 16), ((38, 40), 28)])
def test_long_text_is_cut_around_the_mask(examples: dict[str, ModuleType], masked: tuple[int, int], start: int) -> None:
    tokens = torch.arange(10, 50)
    tokens[slice(*masked)] = 3
    assert torch.equal(examples["masked_language_modelling"].cut(tokens, 12), tokens[start : start + 12])


def test_image_classification(
    examples: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples["image_classification"].main(["--output", "pictures/here.png"])
    assert results(tmp_path / "pictures") == {"here.png"}
    output = capsys.readouterr()
    assert output.out.count("%") == 5
    assert "Its predictions mean nothing" in output.err


def test_optical_flow(examples: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples["optical_flow"].main(["--output", "flow"])
    assert results(tmp_path / "flow") == {"optical_flow.png", "optical_flow.flo"}
    assert read_flo(tmp_path / "flow" / "optical_flow.flo").shape == (2, 240, 320)
    assert "tiles" in capsys.readouterr().err


def test_video_autoencoding(
    examples: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples["video_autoencoding"].main(["--clips", "2"])
    output = capsys.readouterr()
    assert output.out.count("%") == 10
    assert "clip 2 of 2" in output.err
    assert results(tmp_path / "outputs") == {"video_autoencoding.mp4", "video_autoencoding.wav"}
    assert len(read_video(tmp_path / "outputs" / "video_autoencoding.mp4", (32, 32))) == 32
    assert read_audio(tmp_path / "outputs" / "video_autoencoding.wav").shape == (61_440, 1)


@pytest.fixture
def video_model(tmp_path: Path) -> Path:
    model = perceiver_io.create_model(
        "video-autoencoding",
        num_frames=4,
        image_size=(16, 24),
        audio_samples_per_frame=48,
        num_classes=13,
        num_image_bands=4,
        num_audio_bands=8,
        num_latents=9,
        num_latent_channels=32,
        num_self_attends_per_block=1,
        num_self_attend_heads=4,
        decoder_channels=24,
        label_query_channels=16,
    )
    perceiver_io.save_model(model, tmp_path / "video")
    return tmp_path / "video"


def test_sizes_come_from_the_checkpoint(
    examples: dict[str, ModuleType], tmp_path: Path, video_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples["video_autoencoding"].main(["--checkpoint", str(video_model), "--output", "rebuilt.gif"])
    output = capsys.readouterr()
    assert "randomly" not in output.err
    assert output.out.count("class ") == 5
    assert len(read_video(tmp_path / "rebuilt.gif", (16, 24))) == 4
    # 48 samples for each of 25 frames a second.
    assert len(read_audio(tmp_path / "rebuilt.wav", 1_200)) == 4 * 48


def test_a_silent_video_has_silence(
    examples: dict[str, ModuleType], tmp_path: Path, video_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gif(tmp_path / "silent.gif", np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    arguments = ["--checkpoint", str(video_model), "--video", "silent.gif"]
    examples["video_autoencoding"].main(arguments)
    assert "0.00 s of sound for 0.16 s of video" in capsys.readouterr().out
    write_wav(tmp_path / "sound.wav", torch.rand(10_000, 2))
    examples["video_autoencoding"].main([*arguments, "--audio", "sound.wav"])
    assert "silence" not in capsys.readouterr().out


def test_wrong_kinds_of_checkpoint_are_refused(
    examples: dict[str, ModuleType], video_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES[:3]:
        error = error_of(examples[name], ["--checkpoint", str(video_model)], capsys)
        assert "holds a VideoAutoencodingPerceiver; this example needs a" in error


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_that_all_examples_share(
    examples: dict[str, ModuleType], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere" in error_of(examples[name], ["--checkpoint", "nowhere"], capsys)
    assert "cannot use --device abacus" in error_of(examples[name], ["--device", "abacus"], capsys)
    assert "--output result.docx must be a directory" in error_of(examples[name], ["--output", "result.docx"], capsys)
    (tmp_path / "taken").write_text("a file where the directory should be")
    assert "taken" in error_of(examples[name], ["--output", "taken"], capsys)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("image_classification", "--image"),
        ("masked_language_modelling", "--file"),
        ("optical_flow", "--frames"),
        ("video_autoencoding", "--video"),
        ("video_autoencoding", "--audio"),
    ],
)
def test_missing_and_broken_inputs(
    examples: dict[str, ModuleType], tmp_path: Path, name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 2 if option == "--frames" else 1
    assert "none.xyz" in error_of(examples[name], [option, *["none.xyz"] * number], capsys)
    (tmp_path / "broken.xyz").write_bytes(b"\xff\xfe not what it seems")
    assert "broken.xyz" in error_of(examples[name], [option, *["broken.xyz"] * number], capsys)


def test_pictures_of_a_wrong_size(
    examples: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("tiny", (1, 1)), ("small", (100, 100)), ("large", (200, 200)), ("larger", (200, 201))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    assert "too small to crop" in error_of(examples["image_classification"], ["--image", "tiny.png"], capsys)
    flow = examples["optical_flow"]
    assert "at least 120×160" in error_of(flow, ["--frames", "small.png", "small.png"], capsys)
    assert "200×200 and 201×200" in error_of(flow, ["--frames", "large.png", "larger.png"], capsys)


def test_texts_that_cannot_be_masked(examples: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    language = examples["masked_language_modelling"]
    assert "nothing is masked" in error_of(language, ["--text", "no mask"], capsys)
    assert "'cat' is not in the text" in error_of(language, ["--text", "no mask", "--mask", "cat"], capsys)
    far_apart = "[MASK]" + "x" * 300 + "[MASK]"
    assert "the masked bytes span 302 bytes" in error_of(language, ["--text", far_apart], capsys)


def test_a_short_video_or_no_clips(examples: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    video = examples["video_autoencoding"]
    assert "has 32 frames at 25 a second; 48 are needed" in error_of(video, ["--clips", "3"], capsys)
    assert "--clips 0 must be at least 1" in error_of(video, ["--clips", "0"], capsys)


def test_results_are_written_whole_or_not_at_all(
    examples: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = importlib.import_module("common")
    (tmp_path / "result.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"), common.written(tmp_path / "result.txt") as file:
        file.write_text("half")
        raise OSError("disk full")
    assert results(tmp_path) == {"result.txt"}
    assert (tmp_path / "result.txt").read_text() == "old"


def test_the_library_needs_none_of_the_examples_packages() -> None:
    # tqdm is not in the list: torch imports it where it is installed.
    command = (
        "import sys, perceiver_io.inputs, perceiver_io.visualize;"
        "print(sorted({'PIL', 'av', 'matplotlib', 'cv2', 'jax'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"reading pictures needs PIL; .*pip install 'perceiver-io\[examples\]'"):
        perceiver_io.inputs.load_image("any.png")
