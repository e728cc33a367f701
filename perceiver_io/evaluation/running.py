"""A protocol's walk through its samples: resumable, in any number of processes, with the same result.

Samples are measured in batches that are always the same, whoever measures them. What a batch gave is appended to a file
of the process, a line of JSON each, whose numbers are exact; a run that goes on leaves out what is there. The first
line says what is measured, so that outcomes of other weights, data or settings are never mixed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float64
from torch import Tensor, nn
from torch.utils.data import DataLoader

from perceiver_io.evaluation.progress import Progress
from perceiver_io.evaluation.protocol import Example, Protocol
from perceiver_io.outputs import device_of
from perceiver_io.training.distributed import world
from perceiver_io.training.run_directory import occupied
from perceiver_io.training.sampling import Draw, derived_seed
from perceiver_io.training.trainer import Batch, Dataset

OUTCOMES = "outcomes"


class Measured(NamedTuple):
    """All that a protocol found out.

    Attributes:
        outcomes: of the samples that could be read.
        indices: their numbers, in order.
        unreadable: reasons why others could not be read, by number.
    """

    outcomes: Float64[Tensor, "samples columns"]
    indices: list[int]
    unreadable: dict[int, str]


class _BatchRecord(NamedTuple):
    """A batch's line in a file: outcomes, None where the sample could not be read, and the reasons for that."""

    outcomes: list[list[float] | None]
    unreadable: dict[str, str]


@torch.inference_mode()
def measured(
    protocol: Protocol,
    model: nn.Module,
    directory: Path,
    identity: Mapping[str, Any],
    *,
    batch_size: int,
    num_workers: int = 0,
    skip_unreadable: bool = False,
) -> Measured:
    """Measures a model, going on from what the directory holds; every process gets the outcomes of all.

    Args:
        protocol: of the measurement.
        model: on its device.
        directory: for the outcomes; one for all processes.
        identity: what is measured, as JSON can hold it: outcomes of another one are refused.
        batch_size: samples at a time; a part of the identity, since the order of sums may depend on it.
        num_workers: processes that load samples, for each process.
        skip_unreadable: leave samples out that cannot be read, instead of ending.

    Raises:
        ValueError: the directory holds outcomes of something else or is in use; a sample that cannot be read; no sample
            that can; a model whose output is not finite.
        OSError: a file that cannot be read or written.
        KeyboardInterrupt: after an interruption; says how to go on.
    """
    if batch_size < 1:
        raise ValueError(f"batch size ({batch_size}) must be at least 1")
    rank, size = world()
    number = len(protocol.dataset)
    full_identity = json.loads(json.dumps({**identity, "samples": number, "batch size": batch_size}))
    num_batches = -(-number // batch_size)
    with occupied(directory) if rank == 0 else nullcontext():
        records = _merged(_gathered(_recorded(directory / OUTCOMES, full_identity)))
        # What could not be read may be there again.
        done = {batch for batch, record in records.items() if not record.unreadable}
        mine = [batch for batch in range(num_batches) if batch not in done][rank::size]
        try:
            with (
                Progress(len(done) * batch_size, number, size, enabled=rank == 0) as progress,
                _appending(directory / OUTCOMES / f"{rank}.jsonl", full_identity) as file,
            ):
                batches = [range(batch * batch_size, min((batch + 1) * batch_size, number)) for batch in mine]
                walk = _samples(protocol, batches, num_workers)
                for batch, indices, samples in zip(mine, batches, walk, strict=True):
                    record = _measured_batch(protocol, model, dict(zip(indices, samples, strict=True)), skip_unreadable)
                    file.write(json.dumps({"batch": batch, **record._asdict()}) + "\n")
                    file.flush()
                    progress.update(len(indices))
        except KeyboardInterrupt as interruption:
            raise KeyboardInterrupt(
                f"interrupted; {directory / OUTCOMES} holds what is done, and the same command goes on from it"
            ) from interruption
        records = _merged(_gathered(_recorded(directory / OUTCOMES, full_identity)))
    return _joined(protocol, [records[batch] for batch in range(num_batches)])


def _measured_batch(
    protocol: Protocol, model: nn.Module, samples: Mapping[int, Batch | Exception], skip_unreadable: bool
) -> _BatchRecord:
    unreadable = {str(index): str(sample) for index, sample in samples.items() if isinstance(sample, Exception)}
    for sample in samples.values():
        if isinstance(sample, Exception) and not skip_unreadable:
            raise ValueError(
                f"{sample}; mend it and begin anew, or go on without such samples by --skip-unreadable"
            ) from sample
    good = [sample for sample in samples.values() if not isinstance(sample, Exception)]
    rows: Iterator[list[float]] = iter(())
    if good:
        batch = {name: tensor.to(device_of(model)) for name, tensor in protocol.collate(good).items()}
        rows = iter(protocol.measure(model, batch).double().cpu().tolist())
    outcomes = [None if isinstance(sample, Exception) else next(rows) for sample in samples.values()]
    return _BatchRecord(outcomes, unreadable)


def _joined(protocol: Protocol, records: Sequence[_BatchRecord]) -> Measured:
    rows = [row for record in records for row in record.outcomes]
    unreadable = {int(index): reason for record in records for index, reason in record.unreadable.items()}
    indices = [index for index, row in enumerate(rows) if row is not None]
    if not indices:
        raise ValueError(f"no sample of {len(rows)} can be read; the first: {unreadable.get(0, 'there is none')}")
    outcomes = torch.tensor([row for row in rows if row is not None], dtype=torch.float64)
    return Measured(outcomes.view(len(indices), len(protocol.columns)), indices, unreadable)


class _Readable:
    """Maps draws to samples, or to the errors of those that cannot be read, which pass from other processes whole."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Batch | Exception:
        try:
            return self.dataset[draw]
        except (ValueError, OSError) as error:
            return type(error)(str(error)) if type(error) in (ValueError, OSError) else ValueError(str(error))


def _samples(
    protocol: Protocol, batches: Sequence[Sequence[int]], num_workers: int
) -> Iterator[list[Batch | Exception]]:
    draws = [[draw(protocol, index) for index in batch] for batch in batches]
    loader: DataLoader[Any] = DataLoader(
        _Readable(protocol.dataset),  # type: ignore[arg-type]  # its samples are asked for by draws
        batch_sampler=draws,
        num_workers=num_workers,
        collate_fn=list,
    )
    return iter(loader)


@torch.inference_mode()
def example_of(protocol: Protocol, model: nn.Module, index: int) -> Example:
    """Maps the number of a sample to what a person looks at."""
    sample = protocol.collate([protocol.dataset[draw(protocol, index)]])
    return protocol.example(model, {name: tensor.to(device_of(model)) for name, tensor in sample.items()}, index)


def draw(protocol: Protocol, index: int) -> Draw:
    """Maps the number of a sample to what its data set is asked for."""
    return Draw(index, derived_seed(protocol.seed, index))


def _gathered(own: Mapping[int, _BatchRecord]) -> list[Mapping[int, _BatchRecord]]:
    """Gives each process what all of them have; they wait for one another."""
    if world().size == 1:
        return [own]
    found: list[Any] = [None] * world().size
    dist.all_gather_object(found, own)
    return found


def _recorded(folder: Path, identity: Mapping[str, Any]) -> dict[int, _BatchRecord]:
    """Reads what all processes of all runs have written; a line that a killed one did not end is none."""
    records: dict[int, _BatchRecord] = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = _whole_lines(path)
        if not lines:
            continue
        try:
            first, *rest = map(json.loads, lines)
            _check_identity(first, identity, folder)
            found = ({line["batch"]: _BatchRecord(line["outcomes"], line["unreadable"])} for line in rest)
            records = _merged([records, *found])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); remove {folder} and begin anew") from error
    return records


def _merged(found: Iterable[Mapping[int, _BatchRecord]]) -> dict[int, _BatchRecord]:
    """Joins records; of a batch that was measured again, the one in which all could be read stays."""
    records: dict[int, _BatchRecord] = {}
    for part in found:
        for batch, record in part.items():
            if batch not in records or records[batch].unreadable:
                records[batch] = record
    return records


def _check_identity(found: Mapping[str, Any], identity: Mapping[str, Any], folder: Path) -> None:
    for name in [*identity, *found]:
        if found.get(name) != identity.get(name):
            raise ValueError(
                f"{folder} holds outcomes of another evaluation: its {name} is {found.get(name)!r} and not "
                f"{identity.get(name)!r}; choose another --output, or remove it"
            )


def _whole_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _appending(path: Path, identity: Mapping[str, Any]) -> TextIOWrapper:
    """Opens a file of outcomes at the end of its last whole line, or makes one with the identity as its first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    file = path.open("a", encoding="utf-8")
    file.truncate(text.rfind(b"\n") + 1)
    if b"\n" not in text:
        file.write(json.dumps(identity) + "\n")
        file.flush()
    return file
