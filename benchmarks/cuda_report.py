"""What the benchmark of GPUs found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.cuda_tasks import Cell
from benchmarks.report import table
from benchmarks.rows import ROWS


@dataclass(kw_only=True)
class Record:
    """All figures so far.

    Attributes:
        machine: what it is, by name.
        peak_flops: of products of matrices, by precision.
        parity: by row and precision.
        failures: of what is no cell.
        left_out: what there was no time for.
    """

    machine: dict[str, str]
    command: str
    peak_flops: dict[str, float] = field(default_factory=dict)
    parity: dict[str, dict[str, float]] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


_TITLES = {
    "inference": "Inference",
    "training": "Training steps under bfloat16 autocast, AdamW; the share counts three times the forward pass",
}
_LEGEND = (
    "milliseconds (share of the products' peak, counted in the least work); GB at most, of it kept beyond model and "
    "inputs; seconds of the first call; CUDA graphs and compiled programs that were made (none: it ran eagerly)."
)


def report(record: Record) -> str:
    """Maps what was measured to Markdown."""
    machine = record.machine
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in ("processor", "device"))
    parts = [f"{machine['device']}; {machine['processor']}.\n\n{facts}.\n\n`{record.command}`\n"]
    speeds = ", ".join(f"{precision} {peak / 1e12:.3g}" for precision, peak in record.peak_flops.items())
    parts.append(f"Matrix products, TFLOP/s: {speeds}.\n")
    if record.parity:
        precisions = ("float32", "bfloat16")
        rows = [
            [ROWS[name].title, *(f"{errors[p]:.1e}" if p in errors else "–" for p in precisions)]
            for name, errors in record.parity.items()
        ]
        title = "Largest difference from the CPU's float32 in standard deviations of the output.\n\n"
        parts.append(title + table(["", *precisions], rows))
    for section, title in _TITLES.items():
        if found := [cell for cell in record.cells if cell.section == section]:
            parts.append(f"{title}: {_LEGEND}\n\n{_section_table(found)}")
    failures = {**record.failures, **{str(cell): cell.failure for cell in record.cells if cell.failure}}
    notes = [f"* {what}: {failure}" for what, failure in failures.items()]
    notes += [f"* no time left: {what}" for what in record.left_out]
    return "\n".join([*parts, *(["\n".join(notes) + "\n"] if notes else [])])


def _section_table(cells: Sequence[Cell]) -> str:
    sides = list(dict.fromkeys(cell.side for cell in cells))
    lines = sorted({(cell.row, cell.precision, cell.batch) for cell in cells}, key=_place)
    by_place = {(cell.row, cell.precision, cell.batch, cell.side): cell for cell in cells}
    rows = [
        [ROWS[row].title, precision, str(batch), *(figure(by_place.get((row, precision, batch, s))) for s in sides)]
        for row, precision, batch in lines
    ]
    return table(["", "precision", "batch", *sides], rows)


def _place(line: tuple[str, str, int]) -> tuple[int, int, int]:
    row, precision, batch = line
    return list(ROWS).index(row), ("bfloat16", "float32", "tf32").index(precision), batch


def figure(cell: Cell | None) -> str:
    """Maps a cell to its place in the table."""
    if cell is None:
        return "–"
    if cell.seconds is None:
        return "fails"
    share = "" if cell.share is None else f" ({cell.share:.0%})"
    parts = [f"{1e3 * cell.seconds:.3g}{share}"]
    if cell.peak_bytes is not None:
        parts.append(f"{cell.peak_bytes / 1e9:.2f} GB, {(cell.kept_bytes or 0) / 1e9:.2f} kept")
    parts.append(f"{cell.first_call or 0:.2g} s")
    made = [
        f"{number or 'no'} {kind}{'' if number == 1 else 's'}"
        for kind, number in (("graph", cell.recordings), ("program", cell.programs))
        if number is not None
    ]
    return "; ".join([*parts, *([", ".join(made)] if made else [])])
