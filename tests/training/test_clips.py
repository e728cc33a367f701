"""Clips from files, against what was written into them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perceiver_io.media import FRAME_RATE, to_frames, write_mp4, write_wav
from perceiver_io.training import Draw
from perceiver_io.training.data.class_folders import class_names, labelled_files
from perceiver_io.training.data.clips import VIDEO_SUFFIXES, VideoFolder

SAMPLES_PER_FRAME = 120


def shaded_video(path: Path, num_frames: int, sound: bool = True, frame_rate: int = FRAME_RATE) -> None:
    """A video whose frames get lighter by 8 each, with sound that gets louder by 0.04 each."""
    path.parent.mkdir(exist_ok=True)
    frames = torch.arange(num_frames).mul(8 / 255)[:, None, None, None].expand(-1, 3, 32, 48)
    rate = frame_rate * 1920
    tone = torch.sin(torch.arange(num_frames * 1920) / 1920 * 40 * torch.pi)
    loudness = 0.04 * torch.arange(num_frames).repeat_interleave(1920)
    write_mp4(path, to_frames(frames), frame_rate, (loudness * tone)[:, None] if sound else None, rate)


def video_folder(directory: Path, **options: object) -> VideoFolder:
    settings = {"num_frames": 5, "image_size": (16, 24), "audio_samples_per_frame": SAMPLES_PER_FRAME, **options}
    files = labelled_files(directory, class_names(directory), VIDEO_SUFFIXES)
    return VideoFolder(files, **settings)  # type: ignore[arg-type]


class TestVideoFolder:
    def test_clips_start_anywhere_and_sound_goes_with_the_pictures(self, tmp_path: Path) -> None:
        shaded_video(tmp_path / "b" / "clip.mp4", 12)
        clips = video_folder(tmp_path)
        starts = set()
        for seed in range(40):
            clip = clips[Draw(0, seed)]
            assert clip["video"].shape == (5, 3, 16, 24)
            assert clip["audio"].shape == (5 * SAMPLES_PER_FRAME, 1)
            shades = (clip["video"].mean((1, 2, 3)) * 255 / 8).round().long()
            assert (shades.diff() == 1).all()
            start = int(shades[0])
            loudness = clip["audio"].reshape(5, SAMPLES_PER_FRAME).square().mean(1).mul(2).sqrt() / 0.04
            # AAC smears what changes within its blocks of 1,024 samples at 48 kHz.
            assert loudness.tolist() == pytest.approx(range(start, start + 5), abs=1)
            starts.add(start)
        assert starts == set(range(8))

    def test_an_example_depends_on_the_draw_alone(self, tmp_path: Path) -> None:
        shaded_video(tmp_path / "b" / "clip.mp4", 12)
        first, second = (video_folder(tmp_path)[Draw(0, 3)] for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_evaluation_takes_the_start(self, tmp_path: Path) -> None:
        shaded_video(tmp_path / "b" / "clip.mp4", 12)
        clips = video_folder(tmp_path, random_positions=False)
        assert all((clips[Draw(0, seed)]["video"][0] < 4 / 255).all() for seed in range(3))

    def test_files_of_another_rate(self, tmp_path: Path) -> None:
        shaded_video(tmp_path / "b" / "clip.mp4", 12, frame_rate=50)
        clips = video_folder(tmp_path)
        starts = {round(float(clips[Draw(0, seed)]["video"][0].mean()) * 255 / 16) for seed in range(10)}
        assert starts == {0, 1}

    @pytest.mark.parametrize("ending", ["mkv", "mp4", "avi"])
    def test_starts_are_within_the_pictures_whatever_headers_say(self, ending: str, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        path = tmp_path / "b" / f"clip.{ending}"
        with av.open(str(path), "w") as container:
            pictures = container.add_stream("mpeg4", rate=FRAME_RATE)
            pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
            sound = container.add_stream("aac", rate=48_000, layout="mono")
            for shade in range(0, 96, 8):
                frame = np.full((32, 48, 3), shade, np.uint8)
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(pictures.encode(None))
            for number in range(200):  # goes on for four seconds
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48_000, 1024 * number, Fraction(1, 48_000)
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        clips = video_folder(tmp_path)
        starts = {round(float(clips[Draw(0, seed)]["video"][0].mean()) * 255 / 8) for seed in range(60)}
        assert starts == set(range(8))

    def test_labels_are_the_files(self, tmp_path: Path) -> None:
        for name in ("juggling", "abseiling", "zumba"):
            shaded_video(tmp_path / name / "CLIP.MP4", 6)
        clips = video_folder(tmp_path)
        assert [int(clips[Draw(index, 0)]["label"]) for index in range(len(clips))] == [0, 1, 2]

    def test_sound_that_ends_early_goes_on_as_silence(self, tmp_path: Path) -> None:
        frames = torch.zeros(5, 3, 32, 48)
        (tmp_path / "b").mkdir()
        write_mp4(tmp_path / "b" / "clip.mp4", to_frames(frames), FRAME_RATE, torch.full((1920, 1), 0.5))
        audio = video_folder(tmp_path)[Draw(0, 0)]["audio"]
        assert (audio[3 * SAMPLES_PER_FRAME :] == 0).all()
        assert audio.abs().max() > 0.4

    def test_errors(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one video file"):
            VideoFolder([], num_frames=5, image_size=(16, 24), audio_samples_per_frame=SAMPLES_PER_FRAME)
        shaded_video(tmp_path / "b" / "a_silent.mp4", 6, sound=False)
        shaded_video(tmp_path / "b" / "b_short.mp4", 4)
        (tmp_path / "b" / "c_damaged.mp4").write_bytes(b"not a video")
        write_wav(tmp_path / "b" / "sound.wav", torch.zeros(100, 1))
        (tmp_path / "b" / "sound.wav").rename(tmp_path / "b" / "d_blind.mp4")
        clips = video_folder(tmp_path)
        for index, message in enumerate(
            (
                r"a_silent\.mp4 has no sound",
                r"b_short\.mp4 has 4 frames at 25 a second; 5 are needed",
                r"c_damaged\.mp4 is not a video that FFmpeg can read",
                r"d_blind\.mp4 has no picture track",
            )
        ):
            with pytest.raises(ValueError, match=message):
                clips[Draw(index, 0)]
