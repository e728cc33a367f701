"""Shape annotations are checked at run time in every test, and the worst parity figures are reported at the end."""

import os
import signal

# A shell that starts tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
# For the processes that tests start; `torch.set_num_threads` below is for this one.
os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("perceiver_io", "beartype.beartype")

from typing import Any  # noqa: E402

import hypothesis  # noqa: E402  # the hook must come before anything imports the library
import pytest  # noqa: E402
import torch  # noqa: E402

from perceiver_io import attention, checks  # noqa: E402
from perceiver_io.fast import choice  # noqa: E402
from tests.golden import WORST  # noqa: E402

# One order of summation on every machine: with two threads, a case that krasserm's code computed lies 1.08e-5 off, with
# one 8.3e-6. And machines are shared: threads that wait for a busy core make small models many times slower.
torch.set_num_threads(1)
# Machines are shared and noisy: no test fails for being slow.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has tensors on the CPU treated as if they lay on a GPU."""
    monkeypatch.setattr(choice, "kind_of", lambda tensor: "cpu" if tensor.is_meta else "cuda")
    monkeypatch.setattr(checks, "is_at_hand", lambda device: False)
    monkeypatch.setattr(attention, "_takes_repeated_rows", lambda device: False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist, which hands its figures to the first
        session.config.workeroutput["worst"] = WORST


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for group, worst in getattr(node, "workeroutput", {}).get("worst", {}).items():
        WORST[group] = max(WORST.get(group, (-1.0, "")), tuple(worst))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not WORST:
        return
    terminalreporter.section("parity with the reference: worst max |difference| / std per group")
    for group, (error, case) in sorted(WORST.items()):
        terminalreporter.write_line(f"{group:28} {error:.1e}  {case}")
