"""Figures at Weights & Biases, of which a stand-in has the documented calls; once with the package itself, offline."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perceiver_io.training import read_metrics
from perceiver_io.training.wandb_log import ID_FILE, WandbLog
from tests.training.small_run import NUM_STEPS, Interrupted, Scores, interrupt, make_trainer, objective, stopping


class StandIn:
    """What `wandb.init` returns, and the module with it: keeps what it was given."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended: list[int] = []
        self.fails_at: Callable[[str], bool] = lambda call: False

    def _call(self, name: str) -> None:
        if self.fails_at(name):
            raise ConnectionError("the server\nis away")

    def init(self, **settings: Any) -> SimpleNamespace:
        self._call(f"init {settings.get('mode', 'online')}")
        self.begun.append(settings)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, data: dict[str, float], step: int) -> None:
        self._call("log")
        self.logged.append((step, data))

    def finish(self, exit_code: int) -> None:
        self._call("finish")
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=stand_in.init))
    return stand_in


def fit(directory: Path, **options: Any) -> None:
    with WandbLog("perceivers", "small", {"rate": 0.02}) as mirror:
        make_trainer(directory, model=Scores(), mirror=mirror, evaluate=lambda model: {"error": 0.5}, **options).fit()


def test_the_figures_are_those_of_the_log(wandb: StandIn, tmp_path: Path) -> None:
    fit(tmp_path)
    (begun,) = wandb.begun
    assert {name: begun[name] for name in ("project", "name", "config", "resume", "dir")} == {
        "project": "perceivers",
        "name": "small",
        "config": {"rate": 0.02},
        "resume": "allow",
        "dir": str(tmp_path),
    }
    assert begun["id"] == (tmp_path / ID_FILE).read_text().strip()
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["kind"] for record in records] == NUM_STEPS * ["training"] + ["evaluation"]
    for (step, figures), record in zip(wandb.logged, records, strict=True):
        names = record.keys() - {"step", "kind", "seconds"}
        assert (step, figures) == (record["step"], {f"{record['kind']}/{name}": record[name] for name in names})
    assert wandb.ended == [0]


def test_a_resumed_run_goes_on_with_the_same_one(wandb: StandIn, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, objective=stopping(objective, 6, interrupt))
    fit(tmp_path)
    assert wandb.begun[0] == wandb.begun[1]
    assert wandb.ended == [1, 0]
    assert [step for step, _ in wandb.logged] == [1, 2, 3, 4, 5, *range(5, NUM_STEPS + 1), NUM_STEPS]
    fit(tmp_path / "another")
    assert wandb.begun[2]["id"] != wandb.begun[0]["id"]


def test_a_run_that_is_begun_anew_is_another_one(wandb: StandIn, tmp_path: Path) -> None:
    for _ in range(2):
        with WandbLog("perceivers", "small", {}) as mirror:
            mirror.begin(tmp_path, 0)
    assert wandb.begun[0]["id"] != wandb.begun[1]["id"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"cut sh"])
def test_a_number_that_is_damaged_is_made_anew(content: bytes, wandb: StandIn, tmp_path: Path) -> None:
    (tmp_path / ID_FILE).write_bytes(content)
    WandbLog("perceivers", "small", {}).begin(tmp_path, 5)
    assert len(wandb.begun[0]["id"]) == 8
    assert (tmp_path / ID_FILE).read_text().strip() == wandb.begun[0]["id"]


@pytest.mark.parametrize(
    ("fails_at", "warning", "num_logged"),
    [
        ("init online", r"reached \(the server is away\); its figures are kept in .*wandb, for `wandb sync`", 10),
        ("init", r"reached \(the server is away\); the run goes on without it", 0),
        ("log", r"reached \(the server is away\); the run goes on without it", 0),
        ("finish", r"reached \(the server is away\); what was not sent yet is on the disk", 10),
    ],
)
@pytest.mark.filterwarnings("ignore:Weights & Biases cannot be reached")
def test_a_server_that_is_away_stops_no_run(
    fails_at: str, warning: str, num_logged: int, wandb: StandIn, tmp_path: Path
) -> None:
    wandb.fails_at = lambda call: call.startswith(fails_at)
    with pytest.warns(UserWarning, match=warning):
        fit(tmp_path)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == NUM_STEPS + 1
    assert len(wandb.logged) == num_logged
    assert [begun.get("mode") for begun in wandb.begun] == {"init online": ["offline"], "init": []}.get(
        fails_at, [None]
    )


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"logging to Weights & Biases needs wandb; .*perceiver-io-torch\[wandb\]"):
        WandbLog("perceivers", "small", {})


@pytest.mark.slow
def test_the_package_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(Interrupted):
        fit(tmp_path, objective=stopping(objective, 6, interrupt))
    fit(tmp_path)
    number = (tmp_path / ID_FILE).read_text().strip()
    # The second of two runs that begin in the same second has a folder with another ending.
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{number}*/run-{number}.wandb"))
    assert files
    content = b"".join(file.read_bytes() for file in files)
    assert b"training/loss" in content
    assert b"evaluation/error" in content
