"""Sintel's and KITTI's protocols: the owners' layouts, and errors that are known by construction."""

import argparse
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import perceiver_io
from perceiver_io.evaluation import kitti, sintel
from perceiver_io.evaluation.optical_flow import FlowProtocol
from perceiver_io.evaluation.running import example_of, measured
from perceiver_io.media import read_flo
from perceiver_io.training import Draw
from perceiver_io.training.data.flow import find_kitti_pairs
from perceiver_io.weights.locations import sample
from tests.media.test_flow import write_kitti_flow
from tests.small_models import SMALL
from tests.training.test_flow import HEIGHT, WIDTH, pixels, write_invalid, write_picture, write_sintel


class Columns(nn.Module):
    """Knows the true motion of the tests' pictures, one more than column and row, and is off by a little.

    It is off by (3, 4) times the first frame's blue, in tenths.
    """

    def forward(self, frame1: Tensor, frame2: Tensor, tiles: tuple[int, int]) -> Tensor:
        red, green, blue = pixels(frame1).unbind(1)
        return torch.stack([red + 1 + 0.3 * blue, green + 1 + 0.4 * blue], dim=1)


def protocol(task: object, data: Path, size: tuple[int, int] = (HEIGHT, WIDTH), **options: object) -> FlowProtocol:
    model = perceiver_io.create_model("optical-flow", **{**SMALL["optical-flow"], "image_size": size})
    arguments = argparse.Namespace(
        data=data, **{"tiles": (2, 3), "passes": ["clean", "final"], "leave_out_invalid": False, **options}
    )
    return task.prepare(arguments, model, None)  # type: ignore[attr-defined]


def figures(protocol: FlowProtocol, folder: Path, model: nn.Module | None = None) -> dict[str, float]:
    return protocol.figures(measured(protocol, model or Columns(), folder, {}, batch_size=1).outcomes)


def test_both_passes_of_sintel_have_figures_of_their_own(tmp_path: Path) -> None:
    write_sintel(tmp_path / "training")
    # The final pass is harder: by 2 px in one of four pairs, by 6 in another.
    for number, blue in ((1, 4), (2, 12)):
        write_picture(tmp_path / "training" / "final" / "alley_1" / f"frame_{number:04}.png", blue=blue)
    found = figures(protocol(sintel, tmp_path), tmp_path / "out")
    assert found == {
        "epe_clean": pytest.approx(0, abs=1e-4),
        "epe_by_pair_clean": pytest.approx(0, abs=1e-4),
        "fl_all_clean": 0,
        "epe_final": pytest.approx(2, rel=1e-4),
        "epe_by_pair_final": pytest.approx(2, rel=1e-4),
        "fl_all_final": 25,
    }
    assert set(figures(protocol(sintel, tmp_path, passes=["clean"]), tmp_path / "clean")) == {
        "epe_clean",
        "epe_by_pair_clean",
        "fl_all_clean",
    }


def test_sintels_invalid_pixels_are_left_out_if_asked_for(tmp_path: Path) -> None:
    write_sintel(tmp_path / "training")
    write_picture(tmp_path / "training" / "final" / "alley_1" / "frame_0001.png", blue=12)  # off by 6 px
    options = {"passes": ["final"], "leave_out_invalid": True}
    with pytest.raises(ValueError, match=r"frame_0001\.flo has no picture of invalid pixels in a folder `invalid`"):
        protocol(sintel, tmp_path, **options)
    for scene, number in (("alley_1", 2), ("bamboo_2", 1), ("bamboo_2", 2)):
        write_invalid(tmp_path / "training", scene, number, [])
    write_invalid(tmp_path / "training", "alley_1", 1, [(x, y) for x in range(WIDTH) for y in range(HEIGHT // 2)])
    found = figures(protocol(sintel, tmp_path, **options), tmp_path / "without")
    assert found["epe_final"] == pytest.approx(6 * 0.5 / 3.5, rel=1e-4)
    found = figures(protocol(sintel, tmp_path, passes=["final"]), tmp_path / "with")
    assert found["epe_final"] == pytest.approx(6 / 4, rel=1e-4)


def write_kitti(folder: Path, frames: str = "image_2") -> None:
    """Two pairs of different sizes: one off by 5 px, with motion known in 6 pixels, and one exact, known in 2."""
    (folder / "flow_occ").mkdir(parents=True)
    for scene, height, blue, known in ((0, 20, 10, [(0, 0), (0, 29), (9, 9), (1, 2), (3, 4), (5, 6)]), (1, 22, 0, [])):
        for frame in (10, 11):
            write_picture(folder / frames / f"{scene:06}_{frame}.png", height=height, blue=blue)
        flow = torch.full((2, height, 30), torch.inf)
        for y, x in known or [(1, 1), (21, 29)]:
            flow[:, y, x] = torch.tensor([x + 1, y + 1])
        write_kitti_flow(folder / "flow_occ" / f"{scene:06}_10.png", flow)


@pytest.mark.parametrize("frames", ["image_2", "colored_0", "image_0"])
def test_kittis_unknown_pixels_are_left_out(frames: str, tmp_path: Path) -> None:
    write_kitti(tmp_path / "training", frames)
    found = figures(protocol(kitti, tmp_path), tmp_path / "out")
    assert found == {
        "epe": pytest.approx(5 * 6 / 8, rel=1e-3),
        "epe_by_pair": pytest.approx(2.5, rel=1e-3),
        "fl_all": pytest.approx(100 * 6 / 8),
    }


def test_an_outlier_is_far_off_in_pixels_and_in_proportion(tmp_path: Path) -> None:
    # Off by 5 px in all: where it moves by 90 px, 5 % is 4.5 px; by 110 px, 5.5 px.
    (tmp_path / "flow_occ").mkdir()
    for frame in (10, 11):
        write_picture(tmp_path / "image_2" / f"000000_{frame}.png", blue=10)
    flow = torch.full((2, HEIGHT, WIDTH), torch.inf)
    flow[:, 0, 0], flow[:, 0, 1] = torch.tensor([90.0, 0.0]), torch.tensor([0.0, 110.0])
    write_kitti_flow(tmp_path / "flow_occ" / "000000_10.png", flow)

    class Off(nn.Module):
        def forward(self, frame1: Tensor, frame2: Tensor, tiles: tuple[int, int]) -> Tensor:
            return (flow + torch.tensor([3.0, 4.0])[:, None, None]).nan_to_num(posinf=7.0)[None]

    assert figures(protocol(kitti, tmp_path), tmp_path / "out", Off())["fl_all"] == 50


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    write_kitti(tmp_path / "training")
    two_sizes = protocol(kitti, tmp_path)
    with pytest.raises(ValueError, match="20×30 and 22×30 pixels cannot be measured at once; use --batch-size 1"):
        measured(two_sizes, Columns(), tmp_path / "out", {}, batch_size=2)
    with pytest.raises(ValueError, match="pairs must have at least 21×30"):
        measured(protocol(kitti, tmp_path, (21, 30)), Columns(), tmp_path / "small", {}, batch_size=1)
    (tmp_path / "training" / "image_2" / "000001_11.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no frame .*000001_11\.png"):
        find_kitti_pairs(tmp_path)
    (tmp_path / "training" / "flow_occ" / "0000.png").touch()
    with pytest.raises(ValueError, match="is not named as KITTI's flow is"):
        find_kitti_pairs(tmp_path / "training")
    shutil.rmtree(tmp_path / "training" / "flow_occ")
    with pytest.raises(ValueError, match="is not laid out as KITTI is"):
        find_kitti_pairs(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder nowhere"):
        find_kitti_pairs("nowhere")


def test_the_small_model_finds_the_sample_as_it_does_alone(tmp_path: Path) -> None:
    model = perceiver_io.load_model("tiny-optical-flow")
    (tmp_path / "image_2").mkdir()
    (tmp_path / "flow_occ").mkdir()
    for number in (1, 2):
        with Image.open(sample(f"textures_{number}.png")) as picture:
            picture.crop((0, 0, 120, 64)).save(tmp_path / "image_2" / f"000000_1{number - 1}.png")
    true = read_flo(sample("textures.flo"))[:, :64, :120].clone()
    true[:, :, :40] = torch.inf
    write_kitti_flow(tmp_path / "flow_occ" / "000000_10.png", true)
    made = protocol(kitti, tmp_path, model.config.image_size, tiles=(1, 2))
    found = measured(made, model, tmp_path / "out", {}, batch_size=1)
    pair = made.dataset[Draw(0, 0)]
    with torch.no_grad():
        flow = model(pair["frame1"][None], pair["frame2"][None], tiles=(1, 2))[0]
    error = (flow - pair["flow"])[:, :, 40:].norm(dim=0).mean()
    assert made.figures(found.outcomes)["epe"] == pytest.approx(float(error), rel=1e-5)
    assert 0 < error < 1
    example = example_of(made, model, 0)
    assert [pixels.shape for _, pixels in example.pictures] == [(64, 120, 3)] * 4
    assert not example.pictures[2][1][:, :40].any()
