"""A step as one program: equal to the plain one, and compiled once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.autoregressive.compile_steps import KINDS


@pytest.mark.slow
def test_one_program_serves_all_steps() -> None:
    # In a process of its own: the run-time checks of these tests cannot be compiled.
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.autoregressive.compile_steps"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split() == [*KINDS, "generation"]
