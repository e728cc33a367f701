"""Videos with sound as the video colab prepares them, and the model's outputs as frames, sound and names."""

import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import perceiver_io
from perceiver_io.media import read_audio, write_mp4, write_wav
from perceiver_io.processors import VideoProcessor, kinetics700_classes, prepare_audio, prepare_video
from tests.small_models import SMALL
from tests.unchecked import unchecked

NAMES = ("running", "jumping", "resting")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def processor() -> VideoProcessor:
    return VideoProcessor(3, (16, 24), 1920, NAMES)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Nine frames, not of the model's shape, and sound for eight of them."""
    frames = cv2.GaussianBlur(noise(0, 40, 9 * 66, 3), (9, 9), 0).reshape(40, 9, 66, 3).swapaxes(0, 1)
    sound = torch.sin(torch.arange(8 * 1920) / 20)[:, None] / 2
    write_mp4(tmp_path / "video.mp4", frames, audio=sound)
    return tmp_path / "video.mp4"


def test_values_are_the_colabs(tmp_path: Path, video: Path) -> None:
    # The colab crops the largest central square, here the largest window of 2 : 3, and resizes with OpenCV (bilinear).
    capture = cv2.VideoCapture(str(video))
    expected = []
    while (result := capture.read())[0]:
        crop = np.ascontiguousarray(result[1][:, 3:63, ::-1])
        expected.append(cv2.resize(crop, (24, 16)) / 255.0)
    capture.release()
    processor = VideoProcessor(9, (16, 24), 1920, NAMES)
    clips = processor(video)
    assert clips.video.shape == (1, 9, 3, 16, 24)
    assert (clips.video[0].permute(0, 2, 3, 1).numpy() == np.stack(expected).astype(np.float32)).all()

    # The colab divides 16-bit samples by 2^15 and takes one channel.
    sound = torch.rand(9 * 1920 + 5, 2) * 2 - 1
    write_wav(tmp_path / "sound.wav", sound)
    with wave.open(str(tmp_path / "sound.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    clips = processor(video, tmp_path / "sound.wav")
    assert (clips.audio[0, :, 0].numpy() == samples[: 9 * 1920, 0].astype(np.float32) / 2**15).all()


def test_clips_follow_one_another(processor: VideoProcessor, video: Path) -> None:
    clips = processor(video, num_clips=3)
    assert clips.video.shape == (3, 3, 3, 16, 24)
    assert clips.audio.shape == (3, 3 * 1920, 1)
    assert torch.equal(clips.video.flatten(0, 1), prepare_video(processor.frames(video, 3)))
    sound = processor.sound(video, 3)
    assert torch.equal(clips.audio.flatten(0, 1), prepare_audio(sound, 9 * 1920))
    # The file ends within the last clip; what lacks is silence.
    assert len(sound) == len(read_audio(video))
    assert (clips.audio[2, -900:] == 0).all()


def test_every_form_gives_the_same_clip(processor: VideoProcessor) -> None:
    frames = noise(2, 4, 20, 24, 3)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    sound = (torch.rand(3 * 1920) * 2**15).to(torch.int16)
    expected = processor(frames, sound)
    for video in (tensor, frames / 255, tensor.float() / 255):
        for audio in (sound.numpy(), sound / 2**15, (sound / 2**15)[:, None], (sound / 2**15).double().numpy()):
            clips = processor(video, audio)
            assert torch.equal(clips.video, expected.video)
            assert torch.equal(clips.audio, expected.audio)


def test_several_videos_make_a_batch(processor: VideoProcessor, video: Path) -> None:
    frames = noise(3, 6, 30, 17, 3)
    clips = processor([video, frames], num_clips=2)
    assert clips.video.shape == (4, 3, 3, 16, 24)
    assert torch.equal(clips.video[:2], processor(video, num_clips=2).video)
    assert (clips.audio[:2].abs().amax((1, 2)) > 0.3).all()
    assert (clips.audio[2:] == 0).all()
    sound = torch.rand(9, 2)
    assert torch.equal(processor([video, frames], [None, sound]).audio[1, :9, 0], sound[:, 0])


@pytest.mark.parametrize(
    ("videos", "sounds", "num_clips", "message"),
    [
        (noise(0, 5, 8, 9, 3), None, 2, "the video has 5 frames, and 6 are needed"),
        (noise(0, 8, 9, 3), None, 1, r"shape \(3, 9, 3\) is not a video; it must be \[frames, height, width, 3\]"),
        (noise(0, 5, 8, 9, 3), None, 0, r"the number of clips \(0\) must be at least 1"),
        (noise(0, 5, 8, 9), None, 1, r"shape \(3, 8, 9\) is not a video"),
        (noise(0, 5, 4, 8, 9), None, 1, r"an array of shape \(3, 4, 8, 9\) is not a picture"),
        (noise(0, 5, 8, 9, 3), torch.zeros(3, 4, 5), 1, r"a tensor of shape \(3, 4, 5\) is not a sound"),
        (noise(0, 5, 8, 9, 3), np.zeros(9, np.int64), 1, r"shape \(9,\) has samples of type int64; give floating"),
        ([], None, 1, "give at least one video"),
        ([noise(0, 5, 8, 9, 3)], [None, None], 1, "a list with a sound"),
        ([noise(0, 5, 8, 9, 3)], torch.zeros(5), 1, "a list with a sound"),
    ],
)
def test_what_is_no_video_is_refused(
    processor: VideoProcessor, videos: object, sounds: object, num_clips: int, message: str
) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        processor(videos, sounds, num_clips)


def test_outputs_become_frames_sound_and_names() -> None:
    model = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"]).eval()
    processor = VideoProcessor.for_model(model)
    assert processor.sample_rate == 500
    outputs = model(*processor([noise(4, 3, 9, 13, 3), noise(5, 3, 9, 13, 3)]))
    outputs["audio"][1, 7] = 3.0
    first, second = processor.rebuilt(outputs, top=4)
    assert first.frames.shape == (3, 8, 12, 3)
    assert (first.frames == (outputs["image"][0] * 255).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()).all()
    assert torch.equal(first.sound, outputs["audio"][0])
    assert second.sound[7] == 1
    assert [len(clip.classes) for clip in (first, second)] == [4, 4]
    assert first.classes[0].name.startswith("class ")


def test_seven_hundred_classes_are_those_of_kinetics() -> None:
    model = perceiver_io.create_model("video-autoencoding", **{**SMALL["video-autoencoding"], "num_classes": 700})
    assert VideoProcessor.for_model(model).class_names == kinetics700_classes()
    assert VideoProcessor.for_model(model, [str(index) for index in range(700)]).class_names[5] == "5"
