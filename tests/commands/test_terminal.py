"""Output on a terminal: nothing that it would act on, nothing without end, no complaint where nobody listens."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.commands.cli import main
from perceiver_io.terminal import one_line, printable
from perceiver_io.weights.locations import bundled_model, sample

COMMAND = [sys.executable, "-m", "perceiver_io"]


@given(st.text(st.characters(exclude_categories=[])))
def test_text_is_shown_without_what_a_terminal_acts_on(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & {*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u202e", "\ud800"} - set(
        "\n\t"
    )
    assert printable(shown) == shown
    line = one_line(text, 50)
    assert len(line) <= 50
    assert "\n" not in line


def test_what_people_write_stays_as_it_is() -> None:
    text = "Größe\t«Ω» 🙂 می\u200cخواهم\nनमस्ते"
    assert printable(text) == text
    assert printable("\x1b]0;owned\x07\r") == r"\x1b]0;owned\x07\r"
    assert one_line("x" * 5_000_000) == "x" * 999 + "…"


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07\x1b[2J", "\u202egnp.exe", "x" * 5_000_000, "line\nerror: none"])
def test_names_of_a_checkpoint_reach_the_terminal_escaped_and_cut(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(shutil.copytree(bundled_model("tiny-image-classification") or "", tmp_path / "model"))
    config = json.loads((directory / "config.json").read_text())
    config["metadata"]["class_names"] = [f"{name}{number}" for number in range(10)]
    (directory / "config.json").write_text(json.dumps(config))
    words = ["classify", "--checkpoint", str(directory), "--image", str(sample("digit_3.png"))]
    assert main([*words, "--output", str(tmp_path / "chart.png")]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 8
    assert max(map(len, printed.splitlines())) < 400
    assert printable(printed) == printed


def test_names_of_files_reach_the_terminal_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "\x1b[31mred\x07.png"
    shutil.copy(sample("digit_3.png"), picture)
    assert main(["classify", "--image", str(picture), str(tmp_path / "\x1b[2J"), "--output", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert r"\x1b[31mred\x07.png:" in output.out


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    words = [*COMMAND, "mlm", "--text", "[MASK]", "--output", "here.txt"]
    for close in (">&-", "2>&-", ">&- 2>&-"):
        program = ["sh", "-c", f'"$@" {close}', "sh", *words]
        ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr
        assert (tmp_path / "here.txt").read_text().startswith("masked: [MASK]")


@pytest.mark.parametrize(
    "words", [["--help"], ["mlm", "--help"], ["info", "tiny-language"], ["info", "tiny-language", "--json"]]
)
def test_a_reader_that_has_gone_is_no_error(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([*COMMAND, *words], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert ran.stderr == ""
    assert ran.returncode in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*COMMAND, "info", "tiny-language"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "No space left on device" in line


def test_too_little_memory_is_one_line() -> None:
    words = [*COMMAND, "classify", "--image", str(sample("digit_3.png"))]
    code = (
        "import sys; from perceiver_io.commands import cli, classify\n"
        "def fail(*_): bytearray(2**62)\n"
        "classify.load_image = fail\nsys.exit(cli.main(sys.argv[1:]))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words[3:]], capture_output=True, text=True)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: there is not enough memory; give less at once: ")
    assert not list(Path().iterdir())  # the empty directory that these tests run in
