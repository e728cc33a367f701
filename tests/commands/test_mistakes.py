"""Wrong and hostile input: one line, exit code 2, no file left."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import perceiver_io
from perceiver_io import commands
from perceiver_io.commands.cli import main
from perceiver_io.media import write_mp4
from tests.small_models import SMALL

ErrorOf = Callable[..., str]
Checkpoints = dict[str, Path]

COMMANDS = ["mlm", "classify", "flow", "video"]
# What each command reads, where its model is fine and its input is wrong.
INPUTS = [("mlm", "--file"), ("classify", "--image"), ("flow", "--frames"), ("video", "--video"), ("video", "--audio")]


def words(command: str, option: str, value: object) -> list[object]:
    return [command, option, *[value] * (2 if option == "--frames" else 1)]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--checkpoint", ""], "config.json"),
        (["--checkpoint", "../inputs/text.txt"], "text.txt"),
        (["--device", "abacus"], "cannot use --device abacus"),
        (["--device", "meta"], "cannot use --device meta"),
        (["--device", "cuda:99"], "cannot use --device cuda:99"),
        (["--output", "result.docx"], "--output result.docx must be a directory or end in"),
        (["--output", "taken"], "taken"),
        (["--output", "taken/below"], "taken"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see perceiver-io"),
        (["--json", "surplus"], "unrecognized arguments: surplus"),
        (["--output"], "argument --output: expected one argument"),
    ],
)
def test_mistakes_that_all_commands_share(
    command: str, arguments: list[str], message: str, error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path
) -> None:
    Path("taken").write_text("a file where the directory should be")
    given = {
        "mlm": ["--file", inputs / "text.txt"],
        "classify": ["--image", inputs / "picture.png"],
        "flow": ["--frames", inputs / "frame_1.png", inputs / "frame_2.png"],
        "video": ["--video", inputs / "video.mp4"],
    }
    checkpoint = [] if "--checkpoint" in arguments else ["--checkpoint", checkpoints[command]]
    assert message in error_of(command, *checkpoint, *given[command], *arguments)


@pytest.mark.parametrize(("command", "option"), INPUTS)
def test_inputs_that_cannot_be_read(
    command: str, option: str, error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path
) -> None:
    model = ["--checkpoint", checkpoints[command]]
    if option == "--audio":
        model += ["--video", inputs / "video.mp4"]
    files = {
        "broken.xyz": b"\xff not what it seems",
        "cut.png": (inputs / "picture.png").read_bytes()[:200],
        "cut.mp4": (inputs / "video.mp4").read_bytes()[:900],
        "odd\n\x1b[31mname.png": b"\xff",
    }
    for name, content in files.items():
        (inputs / name).write_bytes(content)
        assert name.split("\n")[0] in error_of(*words(command, option, inputs / name), *model)
    for nothing in ("none.xyz", "", "a\0b", "x" * 5000):
        error_of(*words(command, option, nothing), *model)
    assert str(inputs) in error_of(*words(command, option, inputs), *model)


def test_pictures_of_a_wrong_size(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    for name, size in (("tiny", (1, 1)), ("small", (9, 9)), ("large", (20, 20)), ("larger", (20, 21))):
        Image.new("RGB", size).save(inputs / f"{name}.png")
    classify = ["classify", "--checkpoint", checkpoints["classify"]]
    assert "too small to crop" in error_of(*classify, "--image", inputs / "tiny.png")
    flow = ["flow", "--checkpoint", checkpoints["flow"]]
    assert "at least 10×14" in error_of(*flow, "--frames", *[inputs / "small.png"] * 2)
    assert "20×20 and 21×20" in error_of(*flow, "--frames", inputs / "large.png", inputs / "larger.png")
    assert "expected 2 arguments" in error_of(*flow, "--frames", inputs / "large.png")


def test_a_picture_that_would_fill_the_memory(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    # A few bytes that claim to be 60,000×60,000 pixels.
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    (inputs / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    error = error_of("classify", "--checkpoint", checkpoints["classify"], "--image", inputs / "bomb.png")
    assert "bomb.png is not a picture that Pillow can read" in error


def test_texts_that_cannot_be_masked(error_of: ErrorOf, checkpoints: Checkpoints) -> None:
    mlm = ["mlm", "--checkpoint", checkpoints["mlm"]]
    assert "nothing is masked" in error_of(*mlm, "--text", "no mask")
    assert "nothing is masked" in error_of(*mlm, "--text", "")
    assert "--mask 'cat' is not in the text" in error_of(*mlm, "--text", "no mask", "--mask", "cat")
    assert "--mask '' is not in the text" in error_of(*mlm, "--text", "no mask", "--mask", "")
    assert "the masked bytes span 32 bytes" in error_of(*mlm, "--text", "[MASK]" + "x" * 30 + "[MASK]")
    assert "surrogates not allowed" in error_of(*mlm, "--text", "\udcff[MASK]")
    assert "not allowed with argument" in error_of(*mlm, "--text", "[MASK]", "--file", "text.txt")


def test_clips_that_are_not_there(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    video = ["video", "--checkpoint", checkpoints["video"], "--video", inputs / "video.mp4"]
    assert "has 7 frames at 25 a second; 9 are needed" in error_of(*video, "--clips", 3)
    assert "--clips 0 must be at least 1" in error_of(*video, "--clips", 0)
    assert "--clips -7 must be at least 1" in error_of(*video, "--clips", -7)
    assert "invalid int value: 'two'" in error_of(*video, "--clips", "two")


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_and_hostile_checkpoints(
    command: str, error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path
) -> None:
    other = checkpoints["mlm" if command == "video" else "video"]
    assert "; this needs a " in error_of(command, "--checkpoint", other)

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(checkpoints[command], inputs / name))

    def error(directory: Path) -> str:
        given = {"classify": ["--image", inputs / "picture.png"], "mlm": ["--file", inputs / "text.txt"]}
        given["flow"] = ["--frames", inputs / "frame_1.png", inputs / "frame_2.png"]
        given["video"] = ["--video", inputs / "video.mp4"]
        return error_of(command, "--checkpoint", directory, *given[command])

    (damaged("cut") / "model.safetensors").write_bytes(b"\x10" * 99)
    assert "cut/model.safetensors is damaged" in error(inputs / "cut")
    (damaged("no-json") / "config.json").write_text("[" * 10_000)
    assert "no-json/config.json is not the configuration" in error(inputs / "no-json")

    directory = damaged("huge")
    config = json.loads((directory / "config.json").read_text())
    config["config"]["num_latents"] = 10**6
    (directory / "config.json").write_text(json.dumps(config))
    assert "does not fit its config" in error(directory)

    directory = damaged("pickle")
    (directory / "model.safetensors").unlink()
    torch.save({"code": print}, directory / "model.pth")
    assert "pickle/model.pth is damaged" in error(directory)

    directory = damaged("not-finite")
    weights = load_file(directory / "model.safetensors")
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, directory / "m")
    (directory / "m").replace(directory / "model.safetensors")
    assert "is damaged: its SHA-256 is not the one in config.json" in error(directory)
    config = json.loads((directory / "config.json").read_text())
    del config["sha256"]
    (directory / "config.json").write_text(json.dumps(config))
    assert "the model's output is not finite" in error(directory)


def test_class_names_that_do_not_fit(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    for command, given in (
        ("classify", ["--image", inputs / "picture.png"]),
        ("video", ["--video", inputs / "video.mp4"]),
    ):
        directory = Path(shutil.copytree(checkpoints[command], inputs / f"{command}-names"))
        (directory / "training.json").write_text('{"class_names": ["one", "two"]}')
        assert "2 class names for 1" in error_of(command, "--checkpoint", directory, *given)
        (directory / "training.json").write_text("{")
        assert "training.json is not what" in error_of(command, "--checkpoint", directory, *given)


def test_a_language_model_of_words_is_refused(error_of: ErrorOf, inputs: Path) -> None:
    perceiver_io.save_model(perceiver_io.create_model("language", **SMALL["language"]), inputs / "words")
    error = error_of("mlm", "--checkpoint", inputs / "words", "--text", "[MASK]")
    assert "a vocabulary of 31 tokens" in error


def test_no_result_is_written_unless_all_are(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    for command, given, second in (
        ("mlm", ["--file", inputs / "text.txt"], "result.txt"),
        ("flow", ["--frames", inputs / "frame_1.png", inputs / "frame_2.png"], "result.flo"),
    ):
        Path(second).mkdir()
        error = error_of(command, "--checkpoint", checkpoints[command], *given, "--output", "result.png")
        assert f"{second} is a directory" in error


def test_results_are_replaced_whole_or_not_at_all(
    error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("result.png").write_text("old")
    monkeypatch.setattr(commands.flow, "write_flo", _full_disk)
    frames = [inputs / "frame_1.png", inputs / "frame_2.png"]
    error = error_of("flow", "--checkpoint", checkpoints["flow"], "--frames", *frames, "--output", "result.png")
    assert error == "error: disk full"
    assert Path("result.png").read_text() == "old"


def _full_disk(*_: object) -> None:
    raise OSError("disk full")


def test_a_missing_package_is_named_with_its_extra(
    error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    error = error_of("classify", "--checkpoint", checkpoints["classify"], "--image", inputs / "picture.png")
    assert error == "error: reading pictures needs PIL; install it with: pip install 'perceiver-io-torch[examples]'"


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mlm", "--text", "no mask", "--debug"]) == 2
    output = capsys.readouterr()
    assert "Traceback" in output.err
    assert output.err.splitlines()[-1].startswith("error: nothing is masked")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(kind: signal.Signals, checkpoints: Checkpoints, inputs: Path) -> None:
    # Large enough for thousands of tiles.
    frame = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(frame).save(inputs / "large.png")
    command = [sys.executable, "-m", "perceiver_io", "flow", "--checkpoint", str(checkpoints["flow"])]
    process = subprocess.Popen(
        [*command, "--frames", *[str(inputs / "large.png")] * 2],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    while not list(Path().glob("outputs/.writing.*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    while process.poll() is None:
        process.send_signal(kind)
        # Once more if need be, as people do: an interruption that comes while Python runs a finaliser is lost.
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    _, errors = process.communicate()
    # Amid code from a string, such as a named tuple's, CPython ends itself by SIGINT later: 130 in a shell, too.
    assert process.returncode in (130, -signal.SIGINT)
    assert errors.splitlines()[-1].endswith("interrupted")
    assert list(Path().iterdir()) == []


def test_a_video_of_odd_things(error_of: ErrorOf, checkpoints: Checkpoints, inputs: Path) -> None:
    write_mp4(inputs / "short.mp4", np.zeros((1, 32, 32, 3), np.uint8))
    error = error_of("video", "--checkpoint", checkpoints["video"], "--video", inputs / "short.mp4")
    assert "has 1 frames at 25 a second; 3 are needed" in error
    error = error_of("video", "--checkpoint", checkpoints["video"], "--video", inputs / "sound.wav")
    assert "sound.wav has no picture track" in error


def test_results_replace_neither_inputs_nor_files_of_the_user(
    error_of: ErrorOf, run: Callable[..., str], checkpoints: Checkpoints, inputs: Path
) -> None:
    def attempt(command: str, victim: Path, *words: object) -> str:
        before = victim.read_bytes()
        message = error_of(command, "--checkpoint", checkpoints[command], *words)
        assert victim.read_bytes() == before
        return message

    picture, video = inputs / "picture.png", inputs / "video.mp4"
    linked = inputs / "linked.png"
    linked.symlink_to(picture)
    for output in (picture, linked):
        assert "would replace the input" in attempt("classify", picture, "--image", picture, "--output", output)
    assert "would replace the input" in attempt("video", video, "--video", video, "--output", video)
    text = inputs / "essay.txt"
    text.write_text("a [MASK] b")
    for output in (text, text.with_suffix(".png")):
        assert "would replace the input" in attempt("mlm", text, "--file", text, "--output", output)
    notes = inputs / "result.txt"
    notes.write_text("my notes")
    words = ("--text", "a [MASK] b", "--output", inputs / "result.png")
    assert "is there already and would be replaced; choose another --output, or --force" in attempt(
        "mlm", notes, *words
    )
    run("mlm", "--checkpoint", checkpoints["mlm"], *words, "--force")
    assert notes.read_text() != "my notes"
