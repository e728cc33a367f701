"""Sound files: scaling, channels, rates and lengths."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_io.media import read_audio, write_gif, write_wav


def test_sixteen_bit_samples_are_divided_by_two_to_the_fifteen(tmp_path: Path) -> None:
    samples = np.array([[0, 1], [-32768, 32767], [123, -456]], "<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(samples.tobytes())
    assert (read_audio(tmp_path / "sound.wav").numpy() == samples / np.float32(2**15)).all()


def test_reading_undoes_writing(tmp_path: Path) -> None:
    sound = torch.randint(-(2**15), 2**15, (5_000, 2)) / 2**15
    write_wav(tmp_path / "sound.wav", sound)
    assert torch.equal(read_audio(tmp_path / "sound.wav"), sound)
    assert torch.equal(read_audio(tmp_path / "sound.wav", num_samples=1_234), sound[:1_234])


def test_loud_samples_are_clipped(tmp_path: Path) -> None:
    write_wav(tmp_path / "sound.wav", torch.tensor([[3.0], [-3.0]]))
    assert read_audio(tmp_path / "sound.wav").flatten().tolist() == [32767 / 32768, -1]


@pytest.mark.parametrize(("old", "new"), [(44_100, 48_000), (8_000, 48_000), (48_000, 1_200)])
def test_other_rates_are_resampled(tmp_path: Path, old: int, new: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return 0.5 * torch.sin(2 * torch.pi * 200 * torch.arange(rate) / rate)

    write_wav(tmp_path / "sound.wav", tone(old)[:, None], old)
    read = read_audio(tmp_path / "sound.wav", new)[:, 0]
    assert len(read) == pytest.approx(new, abs=64)
    middle = slice(new // 4, new // 2)
    # Windowed sinc resampling; measured at most 5e-4 here.
    assert (read[middle] - tone(new)[middle]).abs().max() < 5e-3


def test_a_file_without_sound_gives_no_samples(tmp_path: Path) -> None:
    write_gif(tmp_path / "silent.gif", np.zeros((2, 8, 8, 3), np.uint8))
    assert read_audio(tmp_path / "silent.gif").shape == (0, 1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not sound")
    with pytest.raises(ValueError, match=r"text\.wav is not a sound file that FFmpeg can read"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(FileNotFoundError, match="no sound file at"):
        read_audio(tmp_path / "none.wav")


def test_only_samples_by_channels_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 0\) is not a sound; it must be \[samples, channels\]"):
        write_wav(tmp_path / "bad.wav", torch.zeros(5, 0))
    assert not (tmp_path / "bad.wav").exists()
