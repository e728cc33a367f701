"""Augmentation of whole batches on the device that learns from them: what `TrainingAugmentation` does, by tensors.

The process that loads a picture draws what is done with it and sends the crop as it was decoded. Crops are of all
sizes, so their pixels lie end to end in one tensor, and a step of all pictures that have the same kind of step is one
calculation. Results are those of `TrainingAugmentation`: bit for bit on the CPU, and on any device before they are
resized.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from perceiver_io.processors.preparation import MEAN_RGB, STDDEV_RGB
from perceiver_io.training.augmentation import DrawnAugmentation, TrainingAugmentation, cubic_taps
from perceiver_io.training.fingerprints import own_fingerprint
from perceiver_io.training.rand_augment import Change, RandAugment, affine_rows
from perceiver_io.training.sampling import Draw
from perceiver_io.training.settings import Batch, Dataset

# Kinds of steps. All operations on single values are a table.
NOTHING, TABLE, AUTOCONTRAST, EQUALIZE, MOVE, CUTOUT, COLOR, SHARPNESS = range(8)
_KINDS = {
    **dict.fromkeys(("invert", "posterize", "solarize", "solarize_add", "brightness", "contrast"), TABLE),
    **dict.fromkeys(("rotate", "shear_x", "shear_y", "translate_x", "translate_y"), MOVE),
    **{"autocontrast": AUTOCONTRAST, "equalize": EQUALIZE, "cutout": CUTOUT, "color": COLOR, "sharpness": SHARPNESS},
}
# Entries of an example, beside its label.
PIXELS = "pixels"
_OTHERS = ("size", "kinds", "tables", "numbers", "rows", "row_weights", "columns", "column_weights")
_VALUES = torch.arange(256, dtype=torch.uint8)


def unfinished(
    crop: UInt8[Tensor, "3 height width"], drawn: DrawnAugmentation, augmentation: TrainingAugmentation
) -> Batch:
    """Maps a crop, and what was drawn for it, to the entries from which `AugmentedOnDevice` makes the picture."""
    size = crop.shape[1], crop.shape[2]
    # The first step mirrors, or does nothing.
    steps = [_Step(MOVE, numbers=(-1.0, 0.0, size[1] - 1.0, 0.0, 1.0, 0.0)) if drawn.is_flipped else _Step()]
    if augmentation.rand_augment is not None:
        steps += [_step(change, size, augmentation.rand_augment) for change in drawn.changes]
    rows, columns = (cubic_taps(old, new) for old, new in zip(size, augmentation.size, strict=True))
    return {
        PIXELS: crop.permute(1, 2, 0).reshape(-1, 3),
        "size": torch.tensor(size),
        "kinds": torch.tensor([step.kind for step in steps]),
        "tables": torch.stack([step.table for step in steps]),
        "numbers": torch.tensor([(*step.numbers, *[0.0] * (6 - len(step.numbers))) for step in steps]),
        "rows": rows.places,
        "row_weights": rows.weights,
        "columns": columns.places,
        "column_weights": columns.weights,
    }


class _Step(NamedTuple):
    kind: int = NOTHING
    table: UInt8[Tensor, " 256"] = _VALUES
    numbers: tuple[float, ...] = ()


def _step(change: Change, size: tuple[int, int], rand_augment: RandAugment) -> _Step:
    """Tells how the device makes a change; one whose factor is 1 is none."""
    kind = _KINDS[change.name]
    if kind == TABLE:
        table = rand_augment.apply(_VALUES.expand(3, 1, 256), [change])[0, 0]
        return _Step() if torch.equal(table, _VALUES) else _Step(kind, table)
    if kind == MOVE:
        first, second = affine_rows(change.name, size, change.numbers[0])
        return _Step(kind, numbers=(*first, *second))
    if kind == CUTOUT:
        row, column, half = change.numbers
        return _Step(kind, numbers=(row - half, row + half, column - half, column + half))
    if kind in (COLOR, SHARPNESS) and (change.numbers[0] == 1 or (kind == SHARPNESS and min(size) < 3)):
        return _Step()
    return _Step(kind, numbers=change.numbers)


class AugmentedOnDevice:
    """A data set of `unfinished` pictures, whose batches are augmented on the device: see `FinishedOnDevice`.

    Args:
        dataset: its examples have the entries of `unfinished`, also with a prefix, as partners have in `Pairs`.
        augmentation: that with which they were made.
    """

    def __init__(self, dataset: Dataset, augmentation: TrainingAugmentation) -> None:
        self.dataset = dataset
        self.augmentation = augmentation

    def fingerprint(self) -> str:
        """Tells these data from others: by the data set's own fingerprint, the same as without a device."""
        return own_fingerprint(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Batch:
        """Maps a draw to an example whose pictures are unfinished."""
        return self.dataset[draw]

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """Joins examples: pixels end to end, all else stacked."""
        pixels = [name for name in examples[0] if name.endswith(PIXELS)]
        others = [{name: value for name, value in example.items() if name not in pixels} for example in examples]
        batch: Batch = default_collate(others)
        return {**batch, **{name: torch.cat([example[name] for example in examples]) for name in pixels}}

    def finish(self, batch: Batch, device: torch.device) -> Batch:
        """Augments the pictures of a batch, as "image" and with the prefixes that there are; all else is copied."""
        finished = {}
        prefixes = [name.removesuffix(PIXELS) for name in batch if name.endswith(PIXELS)]
        used = {f"{prefix}{name}" for prefix in prefixes for name in (PIXELS, *_OTHERS)}
        for prefix in prefixes:
            own = {name: batch[f"{prefix}{name}"] for name in (PIXELS, *_OTHERS)}
            finished[f"{prefix}image"] = self._images(own, device)
        others = {name: value.to(device, non_blocking=True) for name, value in batch.items() if name not in used}
        return {**finished, **others}

    def _images(self, batch: Batch, device: torch.device) -> Float32[Tensor, "batch 3 height width"]:
        kinds = batch["kinds"].T.tolist()  # read here: the device is never waited for
        crops = _Crops(batch[PIXELS], batch["size"], device)
        on_device = {name: batch[name].to(device, non_blocking=True) for name in _OTHERS}
        fill = 0 if self.augmentation.rand_augment is None else self.augmentation.rand_augment.fill
        for step, of_pictures in enumerate(kinds):
            for kind in sorted(set(of_pictures) - {NOTHING}):
                members = [number for number, found in enumerate(of_pictures) if found == kind]
                part = crops.part(members)
                tables, numbers = (on_device[name][part.members, step] for name in ("tables", "numbers"))
                crops.pixels.index_copy_(0, part.place, _changed(kind, crops.pixels, part, tables, numbers, fill))
        rows = on_device["rows"], on_device["row_weights"]
        columns = on_device["columns"], on_device["column_weights"]
        return _normalised(_resized(crops, rows, columns))


class _Part(NamedTuple):
    """The pixels of some of the pictures, one after the other.

    Attributes:
        members: numbers of these pictures in the batch.
        owner: which of the members a pixel is of.
        place: of the pixel among those of all pictures.
        row, column: of the pixel in its picture.
        height, width: of its picture.
    """

    members: Int[Tensor, " members"]
    owner: Int[Tensor, " pixels"]
    place: Int[Tensor, " pixels"]
    row: Int[Tensor, " pixels"]
    column: Int[Tensor, " pixels"]
    height: Int[Tensor, " pixels"]
    width: Int[Tensor, " pixels"]


class _Crops:
    """Pictures of all sizes on a device, their pixels end to end."""

    def __init__(self, pixels: UInt8[Tensor, "pixels 3"], sizes: Int[Tensor, "batch 2"], device: torch.device) -> None:
        self.pixels = pixels.to(device, non_blocking=True, copy=True)
        self._areas = sizes.prod(1)
        self.widths = sizes[:, 1]  # not on the device, which need not be waited for to know how much there is
        self.sizes = sizes.to(device, non_blocking=True)
        self.starts = (self._areas.cumsum(0) - self._areas).to(device, non_blocking=True)

    def part(self, members: Sequence[int]) -> _Part:
        """The pixels of some of the pictures."""
        chosen = torch.tensor(members)
        owner, within = _runs(self._areas[chosen], self.pixels.device)
        on_device = chosen.to(self.pixels.device, non_blocking=True)
        height, width = self.sizes[on_device].T.index_select(1, owner)
        start = self.starts[on_device].index_select(0, owner)
        row = within // width
        return _Part(on_device, owner, start + within, row, within - row * width, height, width)


def _runs(lengths: Int[Tensor, " runs"], device: torch.device) -> tuple[Int[Tensor, " all"], Int[Tensor, " all"]]:
    """Maps lengths, which are not on the device, to the number of each element's run and its place in it."""
    total = int(lengths.sum())
    starts, counts = (one.to(device, non_blocking=True) for one in (lengths.cumsum(0) - lengths, lengths))
    owner = torch.arange(len(lengths), device=device).repeat_interleave(counts, output_size=total)
    return owner, torch.arange(total, device=device) - starts.index_select(0, owner)


def _changed(
    kind: int,
    pixels: UInt8[Tensor, "all 3"],
    part: _Part,
    tables: UInt8[Tensor, "members 256"],
    numbers: Float32[Tensor, "members 6"],
    fill: int,
) -> UInt8[Tensor, "pixels 3"]:
    """Makes one kind of step, as the function of `rand_augment` of that name does."""
    own = pixels.index_select(0, part.place)
    if kind == TABLE:
        return _looked_up(tables[:, None].expand(-1, 3, -1), own, part)
    if kind in (AUTOCONTRAST, EQUALIZE):
        histograms = _histograms(own, part)
        return _looked_up((_stretched if kind == AUTOCONTRAST else _equalized)(histograms), own, part)
    if kind == MOVE:
        return _moved(pixels, part, numbers, fill)
    if kind == CUTOUT:
        top, bottom, left, right = numbers.T[:4].index_select(1, part.owner)
        inside = (part.row >= top) & (part.row < bottom) & (part.column >= left) & (part.column < right)
        return own.masked_fill(inside[:, None], fill)
    other = _greyscale(own) if kind == COLOR else _blurred(pixels, own, part)
    factor = numbers[:, :1].index_select(0, part.owner)
    return (other.float() + factor * (own.float() - other.float())).clamp(0, 255).byte()


def _bins(own: UInt8[Tensor, "pixels 3"], part: _Part) -> Int[Tensor, "pixels 3"]:
    """Numbers each value among those of its channel and picture, 256 of each."""
    return (part.owner[:, None] * 3 + torch.arange(3, device=own.device)) * 256 + own


def _looked_up(
    tables: UInt8[Tensor, "members 3 256"], own: UInt8[Tensor, "pixels 3"], part: _Part
) -> UInt8[Tensor, "pixels 3"]:
    return tables.flatten().index_select(0, _bins(own, part).flatten()).view_as(own)


def _histograms(own: UInt8[Tensor, "pixels 3"], part: _Part) -> Int[Tensor, "members 3 256"]:
    bins = _bins(own, part)
    counts = torch.zeros(len(part.members) * 3 * 256, dtype=torch.int64, device=own.device)
    return counts.scatter_add_(0, bins.flatten(), counts.new_ones(()).expand(bins.numel())).view(-1, 3, 256)


def _stretched(histograms: Int[Tensor, "members 3 256"]) -> UInt8[Tensor, "members 3 256"]:
    values = torch.arange(256, dtype=torch.float32, device=histograms.device)
    low = values.where(histograms > 0, 256.0).amin(-1, keepdim=True)
    high = values.where(histograms > 0, -1.0).amax(-1, keepdim=True)
    scale = torch.full_like(low, 255) / (high - low)  # not by a number, which takes the reciprocal and rounds twice
    stretched = (values * scale - low * scale).clamp(0, 255)
    return stretched.where(low < high, values).byte()


def _equalized(histograms: Int[Tensor, "members 3 256"]) -> UInt8[Tensor, "members 3 256"]:
    values = torch.arange(256, device=histograms.device)
    highest = values.where(histograms > 0, -1).amax(-1, keepdim=True)
    step = (histograms.sum(-1, keepdim=True) - histograms.gather(-1, highest)) // 255
    darker = histograms.cumsum(-1) - histograms
    equalized = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    return equalized.where(step > 0, values).byte()


def _moved(
    pixels: UInt8[Tensor, "all 3"], part: _Part, numbers: Float32[Tensor, "members 6"], fill: int
) -> UInt8[Tensor, "pixels 3"]:
    """The nearest pixel to the place that an affine map gives; see `transform`, whose arithmetic this is."""
    shown, is_outside = [], torch.zeros_like(part.row, dtype=torch.bool)
    for (a, b, c), side in zip(numbers.T.index_select(1, part.owner).split(3), (part.width, part.height), strict=True):
        place = a * part.column.float() + b * part.row.float() + c
        whole = place.trunc()
        nearest = (whole + (place - whole >= 0.5)).long()
        is_outside = is_outside | (place <= -0.5) | (nearest >= side)
        shown.append(nearest)
    first = part.place - part.row * part.width - part.column
    moved = pixels.index_select(0, (first + shown[1] * part.width + shown[0]).where(~is_outside, 0))
    return moved.masked_fill(is_outside[:, None], fill)


def _greyscale(own: UInt8[Tensor, "pixels 3"]) -> UInt8[Tensor, "pixels 3"]:
    red, green, blue = (own.float() / torch.full((), 255.0, device=own.device)).T  # see `_stretched`
    luminance = 0.2989 * red + 0.587 * green + 0.114 * blue
    return (luminance * 255.5).byte()[:, None].expand(own.shape)


def _blurred(pixels: UInt8[Tensor, "all 3"], own: UInt8[Tensor, "pixels 3"], part: _Part) -> UInt8[Tensor, "pixels 3"]:
    is_inside = (part.row > 0) & (part.row < part.height - 1) & (part.column > 0) & (part.column < part.width - 1)
    centre = part.place.where(is_inside, 0)
    sums = 4 * own.int()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            sums = sums + pixels.index_select(0, (centre + down * part.width + right).where(is_inside, 0))
    return (sums // 13).byte().where(is_inside[:, None], own)


# Places of the old pixels, and their shares.
Taps = tuple[Int[Tensor, "batch _ 4"], Float32[Tensor, "batch _ 4"]]


def _resized(crops: _Crops, rows: Taps, columns: Taps) -> Float32[Tensor, "batch height width 3"]:
    """Resizes crops as `resize_bicubic` does: first along their columns, then along their rows."""
    (row_places, row_weights), (column_places, column_weights) = rows, columns
    device, height, width = crops.pixels.device, row_places.shape[1], column_places.shape[1]
    widths = crops.sizes[:, 1]
    owner, within = _runs(height * crops.widths, device)
    width_here = widths.index_select(0, owner)
    row = within // width_here
    start = crops.starts.index_select(0, owner) + within - row * width_here
    taps = owner * height + row
    places = start[:, None] + row_places.flatten(0, 1).index_select(0, taps) * width_here[:, None]
    weights = row_weights.flatten(0, 1).index_select(0, taps)
    lines = F.embedding_bag(places, crops.pixels.float(), per_sample_weights=weights, mode="sum")
    starts = height * (widths.cumsum(0) - widths)
    first = starts[:, None] + torch.arange(height, device=device) * widths[:, None]
    places = first[:, :, None, None] + column_places[:, None]
    weights = column_weights[:, None].expand(places.shape).reshape(-1, 4)
    result = F.embedding_bag(places.view(-1, 4), lines, per_sample_weights=weights, mode="sum")
    return result.view(-1, height, width, 3)


def _normalised(images: Float32[Tensor, "batch height width 3"]) -> Float32[Tensor, "batch 3 height width"]:
    statistics = (255 * torch.tensor(values) for values in (MEAN_RGB, STDDEV_RGB))
    mean, deviation = (values.to(images.device, non_blocking=True) for values in statistics)
    return ((images - mean) / deviation).permute(0, 3, 1, 2).contiguous()
