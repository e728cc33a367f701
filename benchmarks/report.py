"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.measure import Result, RowResult

_SAME_MODEL = 1e-3  # relative difference of the numbers of parameters
_QUIET = 0.2  # cores


def head(description: Mapping[str, str], command: str, threads: int, repeats: int) -> str:
    """Where and how the figures were measured."""
    facts = ", ".join(f"{name} {value}" for name, value in description.items() if name != "processor")
    return (
        f"{description['processor']}; {threads} threads, float32, batch 1, medians of {repeats}.\n\n"
        f"{facts}.\n\n`{command}`\n"
    )


def comparison_tables(results: Sequence[RowResult], gemm: Mapping[str, float]) -> str:
    """Maps rows to the tables of time, work and memory, and the notes on what is missing in them."""
    sides = list(dict.fromkeys(name for result in results for name in result.sides))
    measured = [name for name in sides if any(result.sides.get(name, Result()).seconds for result in results)]
    parts = [_times(results, measured)]
    if "ours" in measured and gemm:
        parts.append(_work(results, gemm))
    parts += [_memory(results, measured), _notes(results)]
    return "\n".join(parts)


def _times(results: Sequence[RowResult], sides: Sequence[str]) -> str:
    """Seconds; in brackets how often ours runs in that time."""

    def cell(result: RowResult, name: str) -> str:
        mine, theirs = result.sides.get("ours"), result.sides.get(name)
        if theirs is None or not theirs.seconds:
            return _absent(theirs)
        if name == "ours":
            spread = (max(theirs.seconds) - min(theirs.seconds)) / theirs.median
            return f"{theirs.median:.3g} s ± {spread / 2:.0%}"
        ratio = f" ({theirs.median / mine.median:.2f}×)" if mine and mine.seconds else ""
        return f"{theirs.median:.3g} s{ratio}"

    rows = [[result.row.title, *(cell(result, name) for name in sides)] for result in results]
    return "Time; in brackets, the side's time divided by ours.\n\n" + table(["", *sides], rows)


def _work(results: Sequence[RowResult], gemm: Mapping[str, float]) -> str:
    kernel = max(gemm, key=lambda name: gemm[name])
    peak = gemm[kernel]
    rows = []
    for result in results:
        mine = result.sides.get("ours")
        if mine is None or not mine.seconds or result.row.gflop is None:
            continue
        speed = result.row.gflop / mine.median
        rows.append([result.row.title, f"{result.row.gflop:,.0f}", f"{speed:.0f}", f"{speed / peak:.0%}"])
    speeds = ", ".join(f"`{name}` {value:.0f}" for name, value in gemm.items())
    return (
        f"Work that is needed at least, per second of ours. Float32 matrix products on this machine, in "
        f"GFLOP/s: {speeds}; the peak is that of `{kernel}`.\n\n"
    ) + table(["", "GFLOP", "GFLOP/s", "of the peak"], rows)


def _memory(results: Sequence[RowResult], sides: Sequence[str]) -> str:
    def cell(result: RowResult, name: str) -> str:
        theirs = result.sides.get(name)
        if theirs is None or theirs.memory is None:
            return _absent(theirs)
        memory = theirs.memory
        steady = "" if memory.steady is None else f" / {memory.steady / 1e9:.2f}"
        return f"{memory.peak / 1e9:.2f}{steady} ({memory.baseline / 1e9:.2f})"

    rows = [[result.row.title, *(cell(result, name) for name in sides)] for result in results]
    return (
        "Peak resident memory of the side's process, GB: over its life / after the first run "
        "(of which libraries, before the model).\n\n"
    ) + table(["", *sides], rows)


def _notes(results: Sequence[RowResult]) -> str:
    """What a reader of the tables must know: calculated figures, missing ones, and models of another size."""
    notes: dict[str, list[str]] = {}  # to the rows that each is about
    for result in results:
        mine = result.sides.get("ours")
        for name, theirs in result.sides.items():
            if theirs.failure:
                note = f"{name}: {theirs.failure}"
            elif theirs.calculation:
                note = f"{name}: calculated, {theirs.calculation}"
            else:
                note = ""
            found = [note] if note else []
            if mine and mine.preparation and theirs.preparation:
                ours, others = mine.preparation.parameters, theirs.preparation.parameters
                if abs(others - ours) > _SAME_MODEL * ours:
                    found.append(f"{name}: another model, with {others:,} parameters where ours has {ours:,}")
            for note in found:
                notes.setdefault(note, []).append(result.row.name)
    every = [result.row.name for result in results]
    disturbed = [r for r in results if r.disturbance is not None and r.disturbance > _QUIET]
    if disturbed:
        worst = max(result.disturbance or 0.0 for result in disturbed)
        note = f"disturbed: other processes kept up to {worst:.1f} cores busy; trust neither times nor ratios"
        notes[note] = [result.row.name for result in disturbed]
    lines = (f"* {note}{'' if rows == every else ' (' + ', '.join(rows) + ')'}" for note, rows in notes.items())
    return "\n".join(lines) + "\n"


def _absent(result: Result | None) -> str:
    if result is None or result.failure is None:
        return "–"
    return f"fails ({kind})" if (kind := result.error) else "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Maps texts to a table whose first column is of names, and the others of figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
