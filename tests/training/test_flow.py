"""Pairs of frames from files, against what was written into them."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from perceiver_io.media import write_flo
from perceiver_io.training import Draw
from perceiver_io.training.data.flow import FlowFolder, PairFiles, find_pairs, find_training_pairs, split_pairs
from perceiver_io.training.flow_augmentation import (
    cropped,
    cropped_and_mirrored,
    known_flow,
    raft_kitti,
    reversed_flow,
)
from tests.media.test_flow import write_kitti_flow, write_pfm

HEIGHT, WIDTH = 20, 30


def write_picture(path: Path, height: int = HEIGHT, width: int = WIDTH, blue: int = 0) -> None:
    """A picture whose red and green are its columns and rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x, y, blue) for y, x in itertools.product(range(height), range(width))])
    picture.save(path)


def write_motion(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    """A flow of one pixel more than the column to the right, and than the row down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    write_flo(path, torch.stack([x, y]).float() + 1)


def write_chairs(directory: Path, number: int = 1) -> PairFiles:
    files = PairFiles(*(directory / f"{number:05}_{name}" for name in ("img1.ppm", "img2.ppm", "flow.flo")))
    write_picture(files.frame1)
    write_picture(files.frame2, blue=200)
    write_motion(files.flow)
    return files


def write_sintel(directory: Path, frames: int = 3) -> None:
    for scene, number in itertools.product(("alley_1", "bamboo_2"), range(1, frames + 1)):
        for rendering in ("clean", "final"):
            write_picture(directory / rendering / scene / f"frame_{number:04}.png")
        if number < frames:
            write_motion(directory / "flow" / scene / f"frame_{number:04}.flo")


def pixels(frame: Tensor) -> Tensor:
    return ((frame + 1) / 2 * 255).round()


class TestFindPairs:
    def test_flying_chairs(self, tmp_path: Path) -> None:
        second, first = write_chairs(tmp_path / "data", 12), write_chairs(tmp_path / "data", 3)
        assert find_pairs(tmp_path) == [first, second]

    def test_auto_flow(self, tmp_path: Path) -> None:
        for name in ("table_1", "table_0"):
            write_picture(tmp_path / "part" / name / "im0.png")
            write_picture(tmp_path / "part" / name / "im1.png")
            write_motion(tmp_path / "part" / name / "forward.flo")
        folders = [tmp_path / "part" / "table_0", tmp_path / "part" / "table_1"]
        assert find_pairs(tmp_path) == [PairFiles(f / "im0.png", f / "im1.png", f / "forward.flo") for f in folders]

    @pytest.mark.parametrize("rendering", ["clean", "final"])
    def test_sintel(self, rendering: str, tmp_path: Path) -> None:
        write_sintel(tmp_path)
        pairs = find_pairs(tmp_path, rendering)
        assert len(pairs) == 4
        scene = tmp_path / rendering / "alley_1"
        flow = tmp_path / "flow" / "alley_1" / "frame_0002.flo"
        assert pairs[1] == PairFiles(scene / "frame_0002.png", scene / "frame_0003.png", flow)

    def test_a_missing_frame_is_named(self, tmp_path: Path) -> None:
        write_sintel(tmp_path)
        (tmp_path / "clean" / "bamboo_2" / "frame_0003.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"frame_0002\.flo has no frame .*bamboo_2/frame_0003\.png"):
            find_pairs(tmp_path)

    def test_folders_without_pairs(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
            find_pairs(tmp_path / "nowhere")
        write_motion(tmp_path / "motion.flo")
        with pytest.raises(ValueError, match="has no pairs of frames; name them as Sintel"):
            find_pairs(tmp_path)

    def test_the_last_tenth_is_held_out(self, tmp_path: Path) -> None:
        pairs = [PairFiles(*[tmp_path / str(number)] * 3) for number in range(21)]
        assert split_pairs(pairs) == (pairs[:18], pairs[18:])
        assert split_pairs(pairs[:2]) == (pairs[:1], pairs[1:2])
        with pytest.raises(ValueError, match="at least two pairs of frames, one of them to be held out; found 1"):
            split_pairs(pairs[:1])


class TestFlowFolder:
    def test_whole_pairs(self, tmp_path: Path) -> None:
        pair = FlowFolder([write_chairs(tmp_path)])[Draw(0, 0)]
        assert {name: part.shape for name, part in pair.items()} == {
            "frame1": (3, HEIGHT, WIDTH),
            "frame2": (3, HEIGHT, WIDTH),
            "flow": (2, HEIGHT, WIDTH),
        }
        assert torch.equal(pixels(pair["frame1"])[:2] + 1, pair["flow"])
        assert torch.equal(pixels(pair["frame2"])[2], torch.full((HEIGHT, WIDTH), 200.0))

    def test_crops_and_mirrored_motion(self, tmp_path: Path) -> None:
        pairs = FlowFolder([write_chairs(tmp_path)], cropped_and_mirrored((7, 11)))
        corners, signs = set(), set()
        for seed in range(200):
            pair = pairs[Draw(0, seed)]
            assert pair["flow"].shape == (2, 7, 11)
            places = pixels(pair["frame1"])[:2]
            assert torch.equal(pixels(pair["frame2"])[:2], places)
            assert torch.equal(pair["flow"].abs(), places + 1)
            sign = pair["flow"].sign()
            # Along x, columns run the way that the sign of the motion says; so do rows along y.
            assert torch.equal(places[0].diff(dim=1), sign[0, :, 1:])
            assert torch.equal(places[1].diff(dim=0), sign[1, 1:])
            signs.add(tuple(sign[:, 0, 0].tolist()))
            corners.add(tuple(places.flatten(1).amin(1).tolist()))
        assert signs == set(itertools.product((1.0, -1.0), repeat=2))
        assert {x for x, _ in corners} == set(range(WIDTH - 11 + 1))
        assert {y for _, y in corners} == set(range(HEIGHT - 7 + 1))

    def test_an_example_depends_on_the_draw_alone(self, tmp_path: Path) -> None:
        first, second = (
            FlowFolder([write_chairs(tmp_path)], cropped_and_mirrored((7, 11)))[Draw(0, 4)] for _ in range(2)
        )
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        files = write_chairs(tmp_path)
        pairs = FlowFolder([files])
        files.flow.write_bytes(files.flow.read_bytes()[:-5])
        with pytest.raises(ValueError, match=r"00001_flow\.flo holds 4807 bytes; 20×30 pixels of flow take 4812"):
            pairs[Draw(0, 0)]
        files.frame2.write_bytes(b"P6 nonsense")
        with pytest.raises(ValueError, match=r"00001_img2\.ppm is not a picture"):
            pairs[Draw(0, 0)]
        files.frame1.unlink()
        with pytest.raises(FileNotFoundError, match=r"no picture at .*00001_img1\.ppm"):
            pairs[Draw(0, 0)]

    def test_sizes_that_do_not_fit(self, tmp_path: Path) -> None:
        files = write_chairs(tmp_path)
        with pytest.raises(ValueError, match=r"00001_img1\.ppm has 20×30 pixels; pairs must have at least 21×8"):
            FlowFolder([files], cropped((21, 8)))[Draw(0, 0)]
        write_picture(files.frame2, height=19)
        with pytest.raises(ValueError, match=r"must have one size; they have 20×30, 19×30, 20×30 pixels"):
            FlowFolder([files])[Draw(0, 0)]

    def test_no_files(self) -> None:
        with pytest.raises(ValueError, match="at least one pair"):
            FlowFolder([])


def test_flying_things_are_found_forwards_and_backwards(tmp_path: Path) -> None:
    scene = Path("TRAIN") / "A" / "0000"
    frames = tmp_path / "frames_cleanpass" / scene / "left"
    frames.mkdir(parents=True)
    for number in (6, 7):
        Image.new("RGB", (5, 3), (number, 0, 0)).save(frames / f"{number:04}.png")
    flow = torch.randn(2, 3, 5)
    for direction in ("Future", "Past"):
        folder = tmp_path / "optical_flow" / scene / f"into_{direction.lower()}" / "left"
        folder.mkdir(parents=True)
        for number in (6, 7):
            write_pfm(folder / f"OpticalFlowInto{direction}_{number:04}_L.pfm", flow)
    pairs = find_pairs(tmp_path)
    # The flow from the first frame backwards and from the last forwards leads to frames that are not there.
    assert [(pair.frame1.name, pair.frame2.name) for pair in pairs] == [
        ("0006.png", "0007.png"),
        ("0007.png", "0006.png"),
    ]
    assert torch.equal(FlowFolder(pairs)[Draw(0, 0)]["flow"], flow)


def write_invalid(directory: Path, scene: str, number: int, places: list[tuple[int, int]], width: int = WIDTH) -> Path:
    path = directory / "invalid" / scene / f"frame_{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (width, HEIGHT))
    for place in places:
        mask.putpixel(place, 255)
    mask.save(path)
    return path


class TestInvalidPixels:
    def test_sintels_are_unknown(self, tmp_path: Path) -> None:
        write_sintel(tmp_path)
        path = write_invalid(tmp_path, "alley_1", 2, [(3, 4), (29, 19)])
        pairs = find_pairs(tmp_path)
        assert [pair.invalid for pair in pairs] == [None, path, None, None]
        flow = FlowFolder(pairs)[Draw(1, 0)]["flow"]
        assert flow.isinf().all(0).nonzero().tolist() == [[4, 3], [19, 29]]
        assert FlowFolder(pairs)[Draw(0, 0)]["flow"].isfinite().all()

    def test_they_belong_to_the_fingerprint(self, tmp_path: Path) -> None:
        write_sintel(tmp_path)
        prints = {FlowFolder(find_pairs(tmp_path)).fingerprint()}
        for places in ([], [(3, 4)]):
            write_invalid(tmp_path, "alley_1", 2, places)
            prints.add(FlowFolder(find_pairs(tmp_path)).fingerprint())
        assert len(prints) == 3

    def test_damaged_ones_are_named(self, tmp_path: Path) -> None:
        write_sintel(tmp_path)
        path = write_invalid(tmp_path, "alley_1", 2, [], width=WIDTH - 1)
        pairs = FlowFolder(find_pairs(tmp_path))
        with pytest.raises(ValueError, match=r"frame_0002\.png must have the size of the motion; they have 20×29 and"):
            pairs[Draw(1, 0)]
        path.write_bytes(b"no picture")
        with pytest.raises(ValueError, match=r"invalid/alley_1/frame_0002\.png is not a picture"):
            pairs[Draw(1, 0)]


def test_both_ways(tmp_path: Path) -> None:
    one_way = FlowFolder([write_chairs(tmp_path, number) for number in (1, 2)])
    pairs = FlowFolder(one_way.files, both_ways=True)
    assert (len(one_way), len(pairs)) == (2, 4)
    assert one_way.fingerprint() != pairs.fingerprint()
    forwards, back = pairs[Draw(1, 0)], pairs[Draw(3, 0)]
    assert back["frame1"].equal(forwards["frame2"])
    assert back["frame2"].equal(forwards["frame1"])
    # What is at (x, y) goes to (2 x + 1, 2 y + 1).
    assert back["flow"][:, 3, 5].tolist() == [2 - 5, 1 - 3]
    assert back["flow"].equal(reversed_flow(forwards["flow"]))


def test_kittis_layout_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "training" / "flow_occ").mkdir(parents=True)
    for frame in (10, 11):
        write_picture(tmp_path / "training" / "image_2" / f"000000_{frame}.png")
    flow = torch.full((2, HEIGHT, WIDTH), torch.inf)
    flow[:, 5, 6] = torch.tensor([3.0, -1.0])
    write_kitti_flow(tmp_path / "training" / "flow_occ" / "000000_10.png", flow)
    for folder in (tmp_path, tmp_path / "training"):
        (files,) = find_training_pairs(folder)
        assert FlowFolder([files])[Draw(0, 0)]["flow"].equal(flow)
    crops = FlowFolder([files], raft_kitti((18, 27)))
    known = [known_flow(crops[Draw(0, seed)]["flow"]).sum() for seed in range(30)]
    assert max(known) == 1
    write_sintel(tmp_path / "sintel")
    assert find_training_pairs(tmp_path / "sintel", "final") == find_pairs(tmp_path / "sintel", "final")
