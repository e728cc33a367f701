"""Video files against the colab's OpenCV recipe, and results written and read back."""

import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from perceiver_io.media import read_audio, read_video, to_frames, video_duration, write_gif, write_mp4, write_wav
from perceiver_io.processors import prepare_video


def moving_square(num_frames: int, height: int, width: int) -> np.ndarray:
    frames = np.full((num_frames, height, width, 3), (40, 90, 160), np.uint8)
    for index, frame in enumerate(frames):
        frame[height // 4 : height // 2, 3 + index : 13 + index] = (230, 200, 60)
    return frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_mp4(tmp_path / "video.mp4", moving_square(9, 48, 64))
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("shape", [(48, 64), (66, 50)])
def test_frames_follow_the_colab(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_mp4(tmp_path / "video.mp4", moving_square(9, *shape))
    capture = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    expected = []
    while (result := capture.read())[0]:
        frame = result[1]
        side = min(shape)
        top, left = shape[0] // 2 - side // 2, shape[1] // 2 - side // 2
        square = np.ascontiguousarray(frame[top : top + side, left : left + side])
        expected.append(cv2.resize(square, (56, 56))[:, :, ::-1])
    capture.release()
    assert (read_video(tmp_path / "video.mp4", (56, 56)) == np.stack(expected)).all()


def test_frames_are_taken_at_25_a_second(tmp_path: Path) -> None:
    frames = np.arange(0, 240, 8, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    write_mp4(tmp_path / "fast.mp4", frames, frame_rate=50)
    fast = read_video(tmp_path / "fast.mp4", (32, 32))
    assert fast[:, 0, 0, 0] == pytest.approx(frames[::2, 0, 0, 0], abs=3)
    write_mp4(tmp_path / "slow.mp4", frames, frame_rate=10)
    slow = read_video(tmp_path / "slow.mp4", (32, 32))
    shown = (np.arange(75) / 2.5 + 1e-6).astype(int)
    assert slow[:, 0, 0, 0] == pytest.approx(frames[shown, 0, 0, 0], abs=3)


def test_an_oblong_size_crops_an_oblong_window(video: Path) -> None:
    assert read_video(video, (20, 40), num_frames=2).shape == (2, 20, 40, 3)


def test_only_the_frames_asked_for_are_read(video: Path) -> None:
    assert (read_video(video, (32, 32), 4) == read_video(video, (32, 32))[:4]).all()


def test_reading_may_start_later(video: Path) -> None:
    assert (read_video(video, (32, 32), 4, start=3) == read_video(video, (32, 32))[3:7]).all()
    assert (read_video(video, (32, 32), start=7) == read_video(video, (32, 32))[7:]).all()


@pytest.mark.parametrize("frame_rate", [10, 25, 30])
def test_durations(tmp_path: Path, frame_rate: int) -> None:
    write_mp4(tmp_path / "video.mp4", moving_square(9, 48, 64), frame_rate)
    assert video_duration(tmp_path / "video.mp4") == pytest.approx(9 / frame_rate, abs=1e-3)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4 is not a video that FFmpeg can read"):
        video_duration(tmp_path / "text.mp4")


def test_a_short_video_is_refused(video: Path) -> None:
    with pytest.raises(ValueError, match=r"video\.mp4 has 9 frames at 25 a second; 10 are needed"):
        read_video(video, (32, 32), 10)
    with pytest.raises(ValueError, match=r"video\.mp4 has 3 frames at 25 a second from frame 6 on; 4 are needed"):
        read_video(video, (32, 32), 4, start=6)


def test_files_without_pictures_are_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "sound.wav", torch.zeros(100, 1))
    with pytest.raises(ValueError, match=r"sound\.wav has no picture track"):
        read_video(tmp_path / "sound.wav", (32, 32))
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4 is not a video that FFmpeg can read"):
        read_video(tmp_path / "text.mp4", (32, 32))
    with pytest.raises(FileNotFoundError, match="no video at"):
        read_video(tmp_path / "none.mp4", (32, 32))


def test_values_are_scaled_to_zero_to_one_and_back() -> None:
    frames = moving_square(2, 6, 20)
    prepared = prepare_video(frames)
    assert prepared.shape == (2, 3, 6, 20)
    assert (prepared.permute(0, 2, 3, 1).numpy() == (frames / 255.0).astype(np.float32)).all()
    assert to_frames(torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 127, 255]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_written_videos_are_read_back(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {codec})
    frames = moving_square(9, 48, 48)
    write_mp4(tmp_path / "video.mp4", frames)
    read = read_video(tmp_path / "video.mp4", (48, 48))
    assert read.shape == frames.shape
    # Compression; measured 2 to 4 grey levels.
    assert np.abs(read.astype(int) - frames).mean() < 6


def test_odd_sides_are_extended(tmp_path: Path) -> None:
    write_mp4(tmp_path / "odd.mp4", moving_square(2, 33, 47))
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (34, 48)


@pytest.mark.parametrize("sample_rate", [48_000, 1_200])
def test_sound_is_written_with_the_video_in_step(tmp_path: Path, sample_rate: int) -> None:
    frequency = sample_rate / 40
    time = torch.arange(sample_rate) / sample_rate
    # A tone that starts half way shows whether the sound is delayed.
    sound = 0.5 * torch.sin(2 * torch.pi * frequency * time) * (time > 0.5)
    write_mp4(tmp_path / "video.mp4", moving_square(25, 32, 48), audio=sound[:, None], sample_rate=sample_rate)
    read = read_audio(tmp_path / "video.mp4")
    assert read.shape[1] == 1
    loud = read[:, 0].abs() > 0.1
    assert int(loud.nonzero()[0]) / 48_000 == pytest.approx(0.5, abs=0.02)
    assert len(read) == pytest.approx(48_000, abs=2_048)


def test_gifs_are_read_back(tmp_path: Path) -> None:
    frames = moving_square(5, 32, 32)
    # GIFs store equal neighbours once, for longer.
    frames[3] = frames[2]
    write_gif(tmp_path / "video.gif", frames)
    assert np.abs(read_video(tmp_path / "video.gif", (32, 32)).astype(int) - frames).mean() < 3


def test_no_frames_are_refused(tmp_path: Path) -> None:
    nothing = np.zeros((0, 8, 8, 3), np.uint8)
    for write in (write_gif, write_mp4):
        with pytest.raises(ValueError, match=r"no frames to write to .*their shape is \(0, 8, 8, 3\)"):
            write(tmp_path / "nothing", nothing)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_videos_of_a_turned_camera_are_turned_upright(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    write_mp4(tmp_path / "video.mp4", moving_square(3, 48, 64))

    def display_matrix(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    # MP4 headers hold the matrix by which a player turns the picture: once for the file, then for each track.
    header, track, rest = (tmp_path / "video.mp4").read_bytes().split(display_matrix(1, 0, 0, 1))
    turned = header + display_matrix(1, 0, 0, 1) + track + display_matrix(*matrix) + rest
    (tmp_path / "turned.mp4").write_bytes(turned)

    capture = cv2.VideoCapture(str(tmp_path / "turned.mp4"))
    upright = capture.read()[1][:, :, ::-1]
    capture.release()
    ours = read_video(tmp_path / "turned.mp4", upright.shape[:2])[0]
    assert np.abs(ours.astype(int) - upright).max() <= 2
