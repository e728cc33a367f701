"""Pairs of frames with the motion between them, from folders with .flo or .pfm files or KITTI's."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver_io.media import load_image, read_flo, read_kitti_flow, read_pfm_flow
from perceiver_io.processors import prepare_frame
from perceiver_io.training.data.files import data_files
from perceiver_io.training.fingerprints import files_digest
from perceiver_io.training.flow_augmentation import FlowAugmentation, reversed_flow
from perceiver_io.training.sampling import Draw

# What the files of a pair are called: FlyingChairs' `00001_img1.ppm`, AutoFlow's folders with `im0.png`.
_NAMES = {"_flow.flo": ("_img1", "_img2"), "forward.flo": ("im0", "im1")}
_READERS = {".flo": read_flo, ".pfm": read_pfm_flow, ".png": read_kitti_flow}
_PICTURE_SUFFIXES = (".png", ".ppm", ".jpg", ".jpeg", ".bmp", ".webp")


class PairFiles(NamedTuple):
    """The files of a pair; Sintel also marks pixels whose motion is not to be trusted, by white ones of a picture."""

    frame1: Path
    frame2: Path
    flow: Path
    invalid: Path | None = None


def find_pairs(directory: str | Path, sintel_pass: str = "clean") -> list[PairFiles]:
    """Maps a folder to the pairs of frames in it, however deep, in sorted order.

    Four ways of naming are understood: Sintel's (`clean/SCENE/frame_0001.png` and `frame_0002.png` with
    `flow/SCENE/frame_0001.flo` and, if it is there, `invalid/SCENE/frame_0001.png`), FlyingChairs'
    (`00001_img1.ppm`, `00001_img2.ppm`, `00001_flow.flo`), AutoFlow's (folders with `im0.png`, `im1.png` and
    `forward.flo`) and FlyingThings3D's (`frames_cleanpass/…/left/0006.png` and `0007.png` with
    `optical_flow/…/into_future/left/OpticalFlowIntoFuture_0006_L.pfm`; into the past likewise).

    Args:
        sintel_pass: which rendering of Sintel's and FlyingThings3D's scenes, "clean" or "final".

    Raises:
        FileNotFoundError: no such folder, or a file of flow whose frames are missing, naming the first of these.
        ValueError: no files of flow that are named in one of these ways.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}; it must hold pairs of frames with .flo files")
    pairs = [_pair(flow, sintel_pass) for flow in data_files(directory, (".flo", ".pfm"))]
    found = [pair for pair in pairs if pair is not None]
    if not found:
        raise ValueError(
            f"{directory} has no pairs of frames; name them as Sintel (clean/SCENE/frame_0001.png, …0002.png, "
            "flow/SCENE/frame_0001.flo), FlyingChairs (1_img1.ppm, 1_img2.ppm, 1_flow.flo), AutoFlow "
            "(im0.png, im1.png, forward.flo) or FlyingThings3D (frames_cleanpass, optical_flow)"
        )
    return found


def find_training_pairs(directory: str | Path, sintel_pass: str = "clean") -> list[PairFiles]:
    """Maps a folder to its pairs, as `find_kitti_pairs` if it is laid out as KITTI is, else as `find_pairs`."""
    folder = Path(directory)
    if any((part / "flow_occ").is_dir() for part in (folder, folder / "training")):
        return find_kitti_pairs(folder)
    return find_pairs(folder, sintel_pass)


# KITTI's folders of frames: those of 2015, and those of 2012 in colour and in grey.
_KITTI_FRAMES = ("image_2", "colored_0", "image_0")


def find_kitti_pairs(directory: str | Path) -> list[PairFiles]:
    """Maps KITTI's folder (2015 or 2012), or its folder `training`, to its pairs with all motion that is known.

    They are `image_2/000000_10.png` and `000000_11.png` with `flow_occ/000000_10.png`; in KITTI 2012 the frames are in
    `colored_0`.

    Raises:
        FileNotFoundError: no such folder, or flow whose frames are missing.
        ValueError: a folder of another layout.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}; it must hold KITTI's training data")
    folder = directory / "training" if (directory / "training").is_dir() else directory
    frames = next((folder / name for name in _KITTI_FRAMES if (folder / name).is_dir()), None)
    flows = data_files(folder / "flow_occ", (".png",)) if (folder / "flow_occ").is_dir() else []
    if frames is None or not flows:
        raise ValueError(
            f"{folder} is not laid out as KITTI is: it must hold flow_occ/000000_10.png and so on, with the frames in "
            f"{', '.join(_KITTI_FRAMES)}"
        )
    pairs = []
    for flow in flows:
        scene, _, number = flow.stem.rpartition("_")
        if not (scene and number.isdecimal()):
            raise ValueError(f"{flow} is not named as KITTI's flow is, 000000_10.png; move it elsewhere")
        following = f"{scene}_{int(number) + 1:0{len(number)}}"
        pairs.append(PairFiles(_picture(flow, frames / flow.stem), _picture(flow, frames / following), flow))
    return pairs


def _pair(flow: Path, sintel_pass: str) -> PairFiles | None:
    """The pair that a file of flow belongs to; None if it is named in no known way."""
    if flow.suffix == ".pfm":
        return _things_pair(flow, sintel_pass)
    for ending, (name1, name2) in _NAMES.items():
        if flow.name.endswith(ending):
            stem = flow.name.removesuffix(ending)
            frame1, frame2 = (_picture(flow, flow.parent / f"{stem}{name}") for name in (name1, name2))
            return PairFiles(frame1, frame2, flow)
    prefix, _, number = flow.stem.rpartition("_")
    if flow.parent.parent.name != "flow" or not number.isdecimal():
        return None
    scene = flow.parents[2] / sintel_pass / flow.parent.name
    following = f"{prefix}_{int(number) + 1:0{len(number)}}"
    invalid = flow.parents[2] / "invalid" / flow.parent.name / f"{flow.stem}.png"
    frame1, frame2 = (_picture(flow, scene / name) for name in (flow.stem, following))
    return PairFiles(frame1, frame2, flow, invalid if invalid.is_file() else None)


# FlyingThings3D's names: forwards and backwards in time, seen from the left and from the right.
_THINGS_NAME = re.compile(r"OpticalFlowInto(Future|Past)_(\d+)_[LR]\.pfm")


def _things_pair(flow: Path, rendering: str) -> PairFiles | None:
    name = _THINGS_NAME.fullmatch(flow.name)
    parts = list(flow.parts)
    if name is None or "optical_flow" not in parts or len(parts) < 4:
        return None
    parts[len(parts) - 1 - parts[::-1].index("optical_flow")] = f"frames_{rendering}pass"
    camera = Path(*parts[:-3], parts[-2])  # without into_future or into_past
    number, after = name[2], int(name[2]) + (1 if name[1] == "Future" else -1)
    if after < 0 or not (camera / f"{number}.png").with_name(f"{after:0{len(number)}}.png").exists():
        return None  # a scene's first and last frames have flow to frames that are not there
    return PairFiles(_picture(flow, camera / number), _picture(flow, camera / f"{after:0{len(number)}}"), flow)


def _picture(flow: Path, stem: Path) -> Path:
    """The picture of a name without its ending."""
    for suffix in _PICTURE_SUFFIXES:
        if (path := stem.with_name(stem.name + suffix)).is_file():
            return path
    raise FileNotFoundError(f"{flow} has no frame {stem}.png (or {', '.join(_PICTURE_SUFFIXES[1:])}) to go with it")


def split_pairs(pairs: Sequence[PairFiles]) -> tuple[list[PairFiles], list[PairFiles]]:
    """Maps pairs in order to those to train on and the last tenth, held out; so scenes of a film stay together.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(pairs) < 2:
        raise ValueError(f"there must be at least two pairs of frames, one of them to be held out; found {len(pairs)}")
    number = math.ceil(len(pairs) / 10)
    return list(pairs[:-number]), list(pairs[-number:])


class FlowFolder:
    """Maps draws to pairs of frames from files: "frame1" and "frame2" in -1…1, and "flow" (x, y) in pixels.

    Motion that is not known, or that the data's owners mark as invalid, is infinite. A pair that cannot be read ends
    the run with an error that names the file; `SkipUnusable` leaves such pairs out.

    Args:
        files: see `find_pairs`.
        augmentation: what becomes of the pairs, with a crop; None leaves them whole.
        both_ways: whether each pair also comes with its frames in reverse, as another example; see `reversed_flow`.
        min_size: height and width in pixels that whole pairs must have.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(
        self,
        files: Iterable[PairFiles],
        augmentation: FlowAugmentation | None = None,
        *,
        both_ways: bool = False,
        min_size: tuple[int, int] = (1, 1),
    ) -> None:
        self.files = list(files)
        if not self.files:
            raise ValueError("a data set needs at least one pair of frames")
        self.augmentation = augmentation
        self.both_ways = both_ways
        self.min_size = augmentation.size if augmentation else min_size

    def fingerprint(self) -> str:
        """Tells these pairs from others: by a digest of their names, sizes and content, and what becomes of them."""
        digest = files_digest(path for files in self.files for path in files if path is not None)
        return f"{digest} {self.augmentation} {self.both_ways}"

    def __len__(self) -> int:
        return len(self.files) * (1 + self.both_ways)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Reads a pair and augments it; in the second half of the examples, the pairs of the first are in reverse.

        Raises:
            FileNotFoundError: a file is gone.
            ValueError: a file is damaged, or the three differ in size or are too small, naming the file.
        """
        turn, number = divmod(draw.index, len(self.files))
        files = self.files[number]
        frames = [prepare_frame(load_image(path)) for path in (files.frame1, files.frame2)]
        read = _READERS[files.flow.suffix.lower()]
        pair = dict(zip(("frame1", "frame2", "flow"), (*frames, read(files.flow)), strict=True))
        sizes = {tuple(part.shape[1:]) for part in pair.values()}
        if len(sizes) > 1:
            shapes = ", ".join("×".join(map(str, part.shape[1:])) for part in pair.values())
            raise ValueError(f"{', '.join(map(str, files[:3]))} must have one size; they have {shapes} pixels")
        (size,) = sizes
        if any(side < wanted for side, wanted in zip(size, self.min_size, strict=True)):
            raise ValueError(
                f"{files.frame1} has {size[0]}×{size[1]} pixels; pairs must have at least "
                f"{self.min_size[0]}×{self.min_size[1]}, the model's image_size"
            )
        if not all(pair[name].isfinite().all() for name in ("frame1", "frame2")):
            raise ValueError(f"{files.frame1} or {files.frame2} has pixels that are no numbers")
        if files.invalid is not None:
            pair["flow"] = _without_invalid(pair["flow"], files.invalid)
        if turn:
            pair = {"frame1": pair["frame2"], "frame2": pair["frame1"], "flow": reversed_flow(pair["flow"])}
        if self.augmentation is None:
            return pair
        return self.augmentation(pair, torch.Generator().manual_seed(draw.seed))


def _without_invalid(flow: Tensor, path: Path) -> Tensor:
    invalid = torch.from_numpy(load_image(path)).amax(-1) > 0
    if invalid.shape != flow.shape[1:]:
        sizes = " and ".join("×".join(map(str, shape)) for shape in (invalid.shape, flow.shape[1:]))
        raise ValueError(f"{path} must have the size of the motion; they have {sizes} pixels")
    return flow.masked_fill(invalid, math.inf)
