"""The command line as a whole: help, versions, options that all commands share, and running it as a program."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perceiver_io
from perceiver_io.commands import Command
from perceiver_io.commands.cli import COMMANDS, main, reported_errors, run_command


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(["--help"], capsys)
    for name in COMMANDS:
        assert f"\n  {name} " in printed
    assert "example:\n  perceiver-io demo" in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"perceiver_io.commands.{name}")
    assert isinstance(module, Command)
    printed = help_of([name, "--help"], capsys)
    assert f"example:\n  {module.EXAMPLE}" in printed
    assert f"perceiver-io {name}" in module.EXAMPLE
    first_line = (module.__doc__ or "").splitlines()[0]
    assert first_line.endswith(".")
    assert first_line in printed
    # Lines of a terminal; what is longer than a few of them is not read.
    assert len(first_line) < 110
    assert "--json" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(["--version"], capsys).strip() == f"perceiver-io {perceiver_io.__version__}"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["juggle"], ["--juggle"], ["juggle", "--json"], ["--debug", "Demo"]])
def test_an_unknown_command_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("see perceiver-io --help")


def test_json_and_debug_may_come_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "--json", "mlm", "--text", "nothing"]) == 2
    assert "Traceback" in capsys.readouterr().err


class _Odd:
    """A command whose result, or error, is odd."""

    EXAMPLE = "odd"

    def __init__(self, result: object) -> None:
        self.result = result

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, arguments: argparse.Namespace) -> object:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def describe(self, result: object) -> str:
        return f"a result: {result}"


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ValueError("two\nlines \x1b[31m"), r"error: two lines \x1b[31m", 2),
        (OSError(), "error: OSError", 2),
        (ImportError("no such package"), "error: no such package", 2),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    error: BaseException, line: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perceiver_io.commands.cli._command", lambda name: _Odd(error))
    assert run_command("odd", []) == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_mistakes_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_io.commands.cli._command", lambda name: _Odd(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError, match="ours"):
        run_command("odd", [])


def test_a_result_that_is_not_json_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perceiver_io.commands.cli._command", lambda name: _Odd({"mean": float("nan")}))
    assert run_command("odd", ["--json"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "not JSON compliant" in output.err


def test_errors_end_a_script_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), reported_errors():
        raise FileNotFoundError("no such file")
    assert capsys.readouterr().err == "error: no such file\n"


def test_it_is_a_program_whose_output_survives_any_encoding(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perceiver_io", "mlm", "--text", "Grüße[MASK]", "--output", "größer.txt"]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert ran.returncode == 0, ran.stderr
    assert r"masked: Gr\xfc\xdfe[MASK]" in ran.stdout
    ran = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["files"] == ["größer.txt"]


def test_the_program_is_installed() -> None:
    program = Path(sys.executable).with_name("perceiver-io")
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"perceiver-io {perceiver_io.__version__}"
