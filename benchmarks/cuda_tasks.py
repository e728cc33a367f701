"""What the benchmark of GPUs measures, one task at a time, and in which order. Imports no torch: see `cuda`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

LARGE = {
    "language-2048": 32,
    "imagenet-fourier": 32,
    "imagenet-learned": 32,
    "imagenet-conv": 32,
    "optical-flow": 4,
    "video-chunk": 8,
    "video-clip": 1,
}
_SMALL_LARGE = 2  # of small models
ASKED = ("imagenet-fourier", "language-2048")  # whose training has a goal
TRAINED = (*ASKED, "imagenet-learned")


@dataclass(frozen=True)
class Peak:
    """Operations a second of a product of two squares."""

    precision: str

    def __str__(self) -> str:
        return f"matrix products, {self.precision}"


@dataclass(frozen=True)
class Parity:
    """The largest difference from the CPU's float32 in deviations of the output."""

    row: str
    precision: str

    def __str__(self) -> str:
        return f"parity of {self.row}, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement of a model.

    Attributes:
        section: "inference" or "training".
        side: what is run.
        seconds: median of the runs; None if it failed.
        share: of the peak of matrix products, counted in the least work that does (of training, three times that).
        peak_bytes: allocated on the device at most, weights included; None on CPUs, as what follows.
        kept_bytes: reserved when all is run and given back, beyond what model and inputs took: memory of graphs,
            workspaces, values computed ahead, an optimizer's state.
        first_call: seconds of the first call, recording and compiling included.
        recordings: CUDA graphs that were made; None where none are to be.
        programs: that the compiler made; likewise.
        failure: the error's first line.
    """

    section: str
    row: str
    side: str
    precision: str
    batch: int
    seconds: float | None = None
    share: float | None = None
    peak_bytes: int | None = None
    kept_bytes: int | None = None
    first_call: float | None = None
    recordings: int | None = None
    programs: int | None = None
    failure: str | None = None

    def __str__(self) -> str:
        return f"{self.section} {self.row}, {self.side}, {self.precision}, batch {self.batch}"


Task = Peak | Parity | Cell


def planned(
    rows: Iterable[str], *, is_cuda: bool, is_quick: bool, has_transformers: bool, has_reference: bool
) -> Iterator[Task]:
    """All that is to be measured, in the order of its worth: what goals are set for comes first, each by its best way.

    Args:
        is_quick: small models, which `transformers` has none of, and which a CPU need not compile.
    """
    rows = list(rows)
    compiled = ("ours, compiled",) if is_cuda or not is_quick else ()
    transformers = ("transformers",) if has_transformers and not is_quick else ()

    def inference(
        sides: Sequence[str], precision: str, *, rows: Sequence[str] = rows, ones: bool = True
    ) -> Iterator[Cell]:
        for row in rows:
            large = _batch(row, is_quick)
            for batch in sorted({1, large}) if ones else [large]:
                for side in sides:
                    if (side, row) != ("transformers", "video-clip"):  # a call for each chunk, which encodes anew
                        yield Cell(section="inference", row=row, side=side, precision=precision, batch=batch)

    def training(trained: Sequence[str], sides: Sequence[str]) -> Iterator[Cell]:
        for row in trained:
            for side in sides if row in rows else ():
                batch = _batch(row, is_quick)
                yield Cell(section="training", row=row, side=side, precision="bfloat16", batch=batch)

    for precision in ("bfloat16", "float32", *(["tf32"] if is_cuda else [])):
        yield Peak(precision)
    yield from inference(compiled, "bfloat16")
    yield from training(ASKED, compiled)
    yield from inference(["ours"], "bfloat16")
    for row in rows:
        if row != "video-clip":  # its model is the chunk's
            yield from (Parity(row, precision) for precision in ("float32", "bfloat16"))
    graphs = ["ours, graphs"] if is_cuda else []
    yield from training(ASKED, graphs)
    yield from inference(["ours"], "float32")
    yield from inference(compiled, "float32", ones=False)
    yield from inference(transformers, "bfloat16")
    yield from training(ASKED, transformers)
    yield from inference(transformers, "float32")
    if has_reference:
        for precision in ("bfloat16", "tf32", "float32"):
            yield from inference(["reference"], precision, rows=[row for row in rows if row == "language-2048"])
    yield from training(ASKED, ["ours", "ours, plain"])
    yield from training([row for row in TRAINED if row not in ASKED], [*compiled, *graphs, "ours", *transformers])
    yield from inference(["ours, eager"], "bfloat16")
    if is_cuda:
        yield from inference(["ours"], "tf32")
    yield from inference(["ours, eager"], "float32")


def _batch(row: str, is_quick: bool) -> int:
    return min(LARGE[row], _SMALL_LARGE) if is_quick else LARGE[row]
