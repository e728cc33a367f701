"""Pictures and sound of a film by its time stamps: late tracks, irregular frames, pauses, and many channels."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perceiver_io.media import read_audio, read_video, video_duration, write_mp4
from perceiver_io.media.film import Clock

RATE = 48_000


def write_film(
    path: Path,
    times: list[float],
    event: float,
    sound: tuple[float, float] | None = None,
    pause: tuple[float, float] | None = None,
    codec: str = "ffv1",
) -> None:
    """A grey film whose frames start at `times`; from `event` seconds on it is white and has a tone.

    Args:
        sound: start and end of the sound track.
        pause: start and end of a time in which the sound track has nothing.
    """
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(codec, rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
        base = Fraction(1, 1000)
        pictures.codec_context.time_base = base
        track = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for time in times:
            grey = 255 if time >= event - 1e-6 else 40
            picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), grey, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), base
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
        if sound is None or track is None:
            return
        for first in range(round(sound[0] * RATE), round(sound[1] * RATE), 1024):
            clock = (np.arange(1024) + first) / RATE
            if pause is not None and pause[0] <= clock[0] < pause[1]:
                continue
            samples = np.where(clock >= event, 0.5 * np.sin(2 * np.pi * 440 * clock), 0).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, first, Fraction(1, RATE)
            container.mux(track.encode(block))
        container.mux(track.encode(None))


def event_of(path: Path, rate: int = RATE) -> tuple[float, float]:
    frames, sound = read_video(path, (16, 24)), read_audio(path, rate)
    bright = np.flatnonzero(frames.mean((1, 2, 3)) > 150)
    loud = np.flatnonzero(np.abs(sound[:, 0].numpy()) > 0.05)
    return bright[0] / 25, loud[0] / rate


REGULAR = [number / 25 for number in range(50)]


@pytest.mark.parametrize("rate", [RATE, 3200])
@pytest.mark.parametrize(
    ("picture_start", "sound"),
    [(0.0, (0.0, 2.0)), (0.0, (0.48, 2.0)), (0.48, (0.0, 2.4)), (0.2, (0.6, 2.0)), (3.0, (3.4, 5.0))],
)
def test_tracks_that_start_at_different_times_stay_together(
    picture_start: float, sound: tuple[float, float], rate: int, tmp_path: Path
) -> None:
    times = [time + picture_start for time in REGULAR]
    write_film(tmp_path / "film.mkv", times, picture_start + 1, sound)
    seen, heard = event_of(tmp_path / "film.mkv", rate)
    # Time counts from the first picture. AAC's blocks have 21 ms.
    assert seen == pytest.approx(1, abs=0.001)
    assert heard == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "times",
    [
        [0, 0.04, 0.08, *np.arange(0.6, 2, 0.04)],  # one frame stays for long, at a nominal 25 a second
        [0, *np.arange(0.9, 2, 0.02)],
        list(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.07, 50))),
        list(np.arange(0, 2, 1 / 24)),
        list(np.arange(0, 2, 1 / 60)),
    ],
)
def test_irregular_frames_are_shown_when_they_are(times: list[float], tmp_path: Path) -> None:
    event = times[len(times) // 2]
    write_film(tmp_path / "film.mkv", times, event, (times[0], 2.0))
    seen, heard = event_of(tmp_path / "film.mkv")
    assert seen == pytest.approx(event - times[0], abs=0.041)
    assert heard == pytest.approx(event - times[0], abs=0.03)
    frames = read_video(tmp_path / "film.mkv", (16, 24))
    # Up to the end of the last frame.
    assert len(frames) / 25 == pytest.approx(times[-1] - times[0], abs=0.09)


def test_jitter_neither_doubles_nor_drops_frames(tmp_path: Path) -> None:
    jitter = np.random.default_rng(0).uniform(-0.008, 0.008, 30)
    jitter[0] = 0
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        pictures = container.add_stream("ffv1", rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 1000)
        for number, late in enumerate(jitter):
            picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 8 * number, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(40 * number + 1000 * late), Fraction(1, 1000)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
    shades = read_video(tmp_path / "film.mkv", (16, 24)).mean((1, 2, 3))
    assert np.abs(shades - 8 * np.arange(30)).max() < 3


def test_pauses_of_the_sound_are_silence(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", REGULAR, 1.5, (0.0, 2.0), pause=(0.5, 1.2))
    seen, heard = event_of(tmp_path / "film.mkv")
    assert seen == pytest.approx(1.52, abs=0.001)
    assert heard == pytest.approx(1.5, abs=0.03)


def test_sound_is_cut_to_what_is_asked_for(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", REGULAR, 1.0, (0.5, 2.0))
    whole = read_audio(tmp_path / "film.mkv", 3200)
    assert (whole[:1500] == 0).all()
    for num_samples in (0, 1, 1000, 1600, 1700, 5000):
        assert torch.equal(read_audio(tmp_path / "film.mkv", 3200, num_samples), whole[:num_samples])


def test_sound_that_ends_before_the_first_picture_is_none(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [time + 2 for time in REGULAR], 9.0, (0.0, 1.0))
    assert len(read_audio(tmp_path / "film.mkv")) == 0


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg")
        cover.height, cover.width, cover.pix_fmt = 32, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        track = container.add_stream("aac", rate=RATE, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(track.encode(block))
        container.mux(track.encode(None))
    with pytest.raises(ValueError, match=r"song\.mp4 has no picture track"):
        read_video(tmp_path / "song.mp4", (8, 8))
    assert len(read_audio(tmp_path / "song.mp4"))


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 8, 9, 12, 17, 64])
def test_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    samples = (1000 * (np.arange(channels) % 30) + np.arange(3000)[:, None] % 7).astype("<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    assert (read_audio(tmp_path / "sound.wav").numpy() == samples / np.float32(2**15)).all()
    # Resampled, each channel is still itself.
    assert read_audio(tmp_path / "sound.wav", 24_000)[200].numpy() == pytest.approx(samples[400] / 2**15, abs=1e-3)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx264"])
def test_frames_that_an_avi_file_leaves_out_move_no_later_ones(codec: str, tmp_path: Path) -> None:
    """Capture programs leave out frames that they miss; an AVI file has an empty place for each."""
    path = tmp_path / "film.avi"
    kept = [*range(0, 10), *range(14, 20), *range(33, 60)]
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(codec, rate=25, options={"bf": "2"} if codec == "mpeg4" else {})
        pictures.height, pictures.width = 32, 48
        pictures.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 25)
        for index in kept:
            grey = np.full((32, 48, 3), 4 * index, np.uint8)
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
    shown = np.round(read_video(path, (16, 24)).mean((1, 2, 3)) / 4)
    expected = [max(index for index in kept if index <= time) for time in range(60)]
    assert len(shown) == 60
    # Two frames next to a gap may take each other's places, where the codec stores them in another order.
    wrong = np.flatnonzero(np.abs(shown - expected) > 1)  # 1: lossy greys
    assert set(wrong.tolist()) <= (set() if codec == "mjpeg" else {*range(8, 16), *range(18, 35)})


@pytest.mark.parametrize("ending", ["avi", "mkv", "mp4"])
def test_titles_may_be_in_any_encoding(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QZQZQZ"
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
    path.write_bytes(path.read_bytes().replace(b"QZQZQZ", b"Stra\xdfe"))
    assert len(read_video(path, (8, 8))) == 3
    assert len(read_audio(path)) == 0
    assert video_duration(path) > 0


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts", "webm"])
def test_the_duration_is_that_of_the_pictures(ending: str, tmp_path: Path) -> None:
    codec = "libvpx" if ending == "webm" else "libx264"
    path = tmp_path / f"film.{ending}"
    if ending == "webm":
        write_film(path, REGULAR, 1.0, codec=codec)
    else:
        write_film(path, REGULAR, 1.0, (0.0, 5.0), codec=codec)
    assert video_duration(path) == pytest.approx(2, abs=0.05)


def test_a_clock_never_goes_back() -> None:
    clock = Clock(10.0, "film")
    # A start, a regular step, a missing stamp, a stamp of another film, and that film's next.
    assert [clock.place(stamp, 0.5) for stamp in (10.0, 10.5, None, 3.0, 3.5)] == [0, 0.5, 1, 1.5, 2]
    assert clock.end == 2.5
    with pytest.raises(ValueError, match="film pauses for 997 s after 2 s; its time stamps are damaged"):
        clock.place(1001.0, 0.5)


def test_a_start_before_the_first_frame_shows_that_frame(tmp_path: Path) -> None:
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    write_mp4(tmp_path / "film.mp4", frames, audio=torch.zeros(5760, 1))
    assert len(read_video(tmp_path / "film.mp4", (8, 8))) == 3
