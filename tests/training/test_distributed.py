"""Several processes, started by torchrun and talking through gloo, against one."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from perceiver_io.training import process_group, world
from perceiver_io.training.distributed import distribute, gradient_exchange, mean_over_processes
from tests.training.small_run import NUM_STEPS, TwoHeads, losses, make_trainer, one_headed


def run_two_processes(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_processes(2, directory, *options)


def run_processes(number: int, directory: Path, *options: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    command += ["--max-restarts", str(restarts), "-m", "tests.training.small_run", str(directory), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unbroken")
    process = run_two_processes(directory)
    assert process.returncode == 0, process.stderr
    return directory


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    directory = tmp_path_factory.mktemp("alone")
    trainer = make_trainer(directory, batch_size=4, accumulation=3)
    trainer.fit()
    return directory, trainer.full_state_dict()


def test_a_killed_run_of_two_processes_goes_on_to_the_same_losses(unbroken: Path, tmp_path: Path) -> None:
    kill_at = random.SystemRandom().randint(1, NUM_STEPS)
    assert run_two_processes(tmp_path, "--noisy-only", "--kill-at", str(kill_at)).returncode != 0
    assert len(losses(tmp_path / "noisy")) == kill_at - 1, kill_at
    process = run_two_processes(tmp_path, "--noisy-only")
    assert process.returncode == 0, process.stderr
    assert losses(tmp_path / "noisy") == losses(unbroken / "noisy"), kill_at


def test_a_signal_to_one_of_two_processes_ends_both_after_their_step(unbroken: Path, tmp_path: Path) -> None:
    end_at = random.SystemRandom().randint(1, NUM_STEPS - 1)
    process = run_two_processes(tmp_path, "--noisy-only", "--end-at", str(end_at))
    assert process.returncode != 0
    assert f"state.pt holds step {end_at} of 9, and the same command goes on from it" in process.stderr
    assert torch.load(tmp_path / "noisy" / "state.pt")["step"] == end_at
    process = run_two_processes(tmp_path, "--noisy-only")
    assert process.returncode == 0, process.stderr
    assert losses(tmp_path / "noisy") == losses(unbroken / "noisy"), end_at


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_output_need_not_reach_the_loss(strategy: str, unbroken: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    make_trainer(tmp_path, objective=one_headed, model=TwoHeads(), batch_size=4).fit()
    assert losses(unbroken / f"{strategy}-one-headed") == pytest.approx(losses(tmp_path), rel=1e-4)


def test_two_processes_equal_one_with_twice_the_batch(unbroken: Path, alone: tuple[Path, dict]) -> None:
    assert losses(unbroken / "ddp") == pytest.approx(losses(alone[0]), rel=1e-4)


def test_sharded_and_interrupted_processes_equal_one_with_twice_the_batch(
    unbroken: Path, alone: tuple[Path, dict]
) -> None:
    assert losses(unbroken / "fsdp") == pytest.approx(losses(alone[0]), rel=1e-4)
    state = torch.load(unbroken / "fsdp.pt")
    assert state.keys() == alone[1].keys()
    for name, tensor in alone[1].items():
        torch.testing.assert_close(state[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def test_a_sharded_run_goes_on_in_one_process(unbroken: Path, alone: tuple[Path, dict]) -> None:
    resumed = make_trainer(unbroken / "fsdp", batch_size=6, accumulation=2)
    assert resumed.fit() == {}
    for name, tensor in torch.load(unbroken / "fsdp.pt").items():
        assert torch.equal(resumed.full_state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--noisy-only"], ["--sharded", "noisy"]])
def test_compiled_processes_learn_the_same(options: list[str], tmp_path: Path) -> None:
    for name, compiled in (("plain", []), ("compiled", ["--compiled"])):
        process = run_two_processes(tmp_path / name, *options, *compiled)
        assert process.returncode == 0, process.stderr
    plain, compiled = (
        tmp_path / name / ("noisy" if "--noisy-only" in options else "") for name in ("plain", "compiled")
    )
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.slow
def test_a_sharded_run_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    for processes, step in ((2, 3), (4, 6)):
        process = run_processes(processes, tmp_path / "run", "--sharded", "plain", "--end-at", "3")
        assert f"state.pt holds step {step} of 9" in process.stderr, process.stderr
    resumed = make_trainer(tmp_path / "run", batch_size=4, average_decay=0.5)
    resumed.fit()
    alone = make_trainer(tmp_path / "alone", batch_size=4, average_decay=0.5)
    alone.fit()
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    for name, tensor in alone.full_state_dict().items():
        torch.testing.assert_close(resumed.full_state_dict()[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_killed_sharded_processes_go_on_to_the_same_bits(restarts: int, tmp_path: Path) -> None:
    kill_at = random.SystemRandom().randint(4, NUM_STEPS)
    assert run_processes(4, tmp_path / "unbroken", "--sharded", "noisy").returncode == 0
    options = ["--sharded", "noisy", "--kill-at", str(kill_at), "--kill-once"]
    process = run_processes(4, tmp_path / "killed", *options, restarts=restarts)
    assert (process.returncode == 0) == bool(restarts), process.stderr
    if not restarts:
        # A state that was being written when the process died does not count.
        process = run_processes(4, tmp_path / "killed", "--sharded", "noisy")
        assert process.returncode == 0, process.stderr
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken"), kill_at
    states = [torch.load(tmp_path / name / "state.pt")["shards"]["files"] for name in ("killed", "unbroken")]
    assert states[0].keys() == states[1].keys()
    assert len(states[0]) == 5  # a part of each process, and where everything is


def test_alone_nothing_is_wrapped() -> None:
    model = nn.Linear(3, 2)
    assert world() == (0, 1)
    assert distribute(model, model, "ddp") is model
    with gradient_exchange(model, model, enabled=False):
        pass
    assert mean_over_processes({"loss": torch.tensor(2.5), "count": torch.tensor(3)}) == {"loss": 2.5, "count": 3.0}


def test_alone_nothing_can_be_sharded() -> None:
    with pytest.raises(ValueError, match="strategy 'fsdp' needs several processes; start them with torchrun, or use"):
        distribute(nn.Linear(3, 2), nn.Linear(3, 2), "fsdp")


def test_alone_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with process_group("cpu") as device:
        assert device == torch.device("cpu")


def test_a_start_that_would_hang_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.delenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", raising=False)
    with (
        pytest.raises(ValueError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun"),
        process_group("cpu"),
    ):
        pass


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match=f"cannot use device {device}: "), process_group(device):
        pass
