"""Kinetics' protocol: the owners' layout, and figures that are known by construction."""

import argparse
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import perceiver_io
from perceiver_io.evaluation import kinetics
from perceiver_io.evaluation.kinetics import KineticsProtocol
from perceiver_io.evaluation.running import example_of, measured
from perceiver_io.media import to_frames, write_mp4
from perceiver_io.training.data.kinetics import find_labelled_clips
from tests.small_models import SMALL

NAMES = [f"class {number}" for number in range(13)]
HEADER = "label,youtube_id,time_start,time_end,split"


def write_clip(path: Path, brightness: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.2 * torch.sin(torch.arange(7 * 1920) / 30)
    write_mp4(path, to_frames(torch.full((7, 3, 32, 48), brightness)), audio=tone[:, None])


def write_kinetics(folder: Path) -> None:
    """Three clips, named as they are fetched; the csv file knows one more, which is not there."""
    write_clip(folder / "val" / "class 2" / "-abc_DEF123_000003_000013.mp4", 0.2)
    write_clip(folder / "val" / "class 5" / "xyz_000120_000130.mp4", 0.5)
    write_clip(folder / "whole.mp4", 0.6)
    rows = [
        '"class 2",-abc_DEF123,3,13,val',
        "class 7,gone,0,10,val",
        "class 6,xyz,120.0,130.0,val",
        "class 6,whole,0,9,val",
    ]
    (folder / "val.csv").write_text("\n".join([HEADER, *rows]) + "\n")


class Off(nn.Module):
    """Rebuilds pictures lighter by 0.1 and sound louder by 0.01, and takes ten times the brightness for the class."""

    def forward(self, video: Tensor, audio: Tensor) -> dict[str, Tensor]:
        brightness = video.mean((1, 2, 3, 4))
        label = -(10 * brightness[:, None] - torch.arange(13)).abs()
        return {"image": video + 0.1, "audio": audio + 0.01, "label": label}


def protocol(data: Path, labels: Path | None = None) -> KineticsProtocol:
    model = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"])
    return kinetics.prepare(argparse.Namespace(data=data, labels=labels), model, NAMES)


def test_figures_are_known_and_missing_clips_are_counted(tmp_path: Path) -> None:
    write_kinetics(tmp_path)
    made = protocol(tmp_path)
    assert made.description == f"3 clips of {tmp_path}; 1 others of {tmp_path / 'val.csv'} are not there"
    found = measured(made, Off(), tmp_path / "out", {}, batch_size=2)
    # The brightest is 0.6, so that nothing is clipped; 0.5 is labelled 6 and taken for 5.
    assert made.figures(found.outcomes) == {
        "image_psnr": pytest.approx(20, abs=1e-4),
        "audio_psnr": pytest.approx(40, abs=1e-3),
        "top1": pytest.approx(100 * 2 / 3),
    }
    example = example_of(made, Off(), 1)
    assert example.title == f"class 6 ({tmp_path}/val/class 5/xyz_000120_000130.mp4): pictures 20.0 dB, sound 40.0 dB"
    assert [pixels.shape for _, pixels in example.pictures] == [(8, 3 * 12, 3)] * 2


class Exact(Off):
    """Rebuilds pictures lighter by 0.1, and sound as it is."""

    def forward(self, video: Tensor, audio: Tensor) -> dict[str, Tensor]:
        return {**super().forward(video, audio), "audio": audio}


def test_what_is_rebuilt_exactly_has_no_finite_mean_and_stands_in_the_outcomes(tmp_path: Path) -> None:
    write_clip(tmp_path / "class 11" / "a.mp4", 0.2)
    made = protocol(tmp_path)
    for _ in range(2):  # measured, and read back
        found = measured(made, Exact(), tmp_path / "out", {}, batch_size=2)
        figures = made.figures(found.outcomes)
        assert (figures["image_psnr"], figures["audio_psnr"]) == (pytest.approx(20, abs=1e-4), math.inf)
    assert "Infinity" in (tmp_path / "out" / "outcomes" / "0.jsonl").read_text()


def test_without_a_csv_file_folders_are_classes(tmp_path: Path) -> None:
    write_clip(tmp_path / "class 11" / "a.mp4", 0.2)
    assert [label for _, label in protocol(tmp_path).files] == [11]
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="has 2 csv files; say with --labels which one has the labels"):
        protocol(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{HEADER}\nclass 13,xyz,120,130,val\n",
            "line 2 of .* has the label 'class 13', which is none of the",
        ),
        ("label,id\nclass 2,xyz\n", "has the columns label, id; it must have label, and youtube_id"),
        ("", r"has the columns \(none\)"),
        (f"{HEADER}\nclass 2,xyz,early,130,val\n", "line 2 of .* has a time that is no number"),
        (f"{HEADER}\nclass 2,xyz,1,2\n", "line 2 of .* has another number of columns than the first line"),
        (f"{HEADER}\nclass 2,xyz,1,2,val,more\n", "line 2 of .* has another number of columns than the first line"),
        (f"{HEADER}\nclass 2,other,1,2,val\n", r"has none of the 1 clips of .*, such as other_000001_000002\.mp4"),
        (f'{HEADER}\n"class 2,xyz,1,2,val\n', "is not a csv file of labels"),
    ],
)
def test_labels_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "xyz_000120_000130.mp4", 0.2)
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        protocol(tmp_path)


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no csv file of labels"):
        protocol(tmp_path, tmp_path / "none.csv")
    for labels in (None, tmp_path / "none.csv"):
        with pytest.raises(FileNotFoundError, match="there is no folder nowhere"):
            protocol(Path("nowhere"), labels)


def test_files_may_be_named_as_they_are(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "mine.mp4", 0.2)
    (tmp_path / "labels.csv").write_text("file,label\nmine.mp4,class 2\n")
    assert find_labelled_clips(tmp_path, tmp_path / "labels.csv", NAMES).files[0].label == 2


def test_clips_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_clip(tmp_path / folder / "1.mp4", 0.2)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nx/1.mp4,class 2\ny/1.mp4,class 3\nz/1.mp4,class 4\n")
    found = find_labelled_clips(tmp_path, labels, NAMES)
    assert [(path.parent.name, label) for path, label in found.files] == [("x", 2), ("y", 3)]
    assert found.missing == ["z/1"]
    labels.write_text("file,label\n1.mp4,class 2\n")
    with pytest.raises(ValueError, match=r"line 2 of .* may be .*x/1\.mp4 or .*y/1\.mp4; keep one of them"):
        find_labelled_clips(tmp_path, labels, NAMES)
    # A film of which the csv file knows two parts is none of them.
    write_clip(tmp_path / "z" / "abc.mp4", 0.2)
    write_clip(tmp_path / "z" / "abc_000050_000060.mp4", 0.2)
    labels.write_text(f"{HEADER}\nclass 2,abc,0,10,val\nclass 3,abc,50,60,val\n")
    found = find_labelled_clips(tmp_path, labels, NAMES)
    assert ([label for _, label in found.files], found.missing) == ([3], ["abc_000000_000010"])
