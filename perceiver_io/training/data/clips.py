"""Clips with sound for autoencoding, from video files in a folder per class."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from perceiver_io.media import FRAME_RATE, TooShortError, read_audio, read_video, video_duration
from perceiver_io.processors import prepare_audio, prepare_video
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.fingerprints import files_digest
from perceiver_io.training.sampling import Draw

VIDEO_SUFFIXES = (".mp4", ".avi", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm")


class VideoFolder:
    """Maps draws to clips from video files: at a random position of the file, with its sound.

    Pictures are cropped and resized as `read_video` does it, sound is resampled to go with them. Sound that ends before
    the pictures goes on as silence. A video without any is an error, since its silence would be taught as what goes
    with its pictures; `SkipUnusable` leaves such videos out, and damaged ones.

    Args:
        files: see `find_labelled_files`, with `VIDEO_SUFFIXES`.
        num_frames: of a clip, 25 a second.
        image_size: height and width of a frame in pixels.
        audio_samples_per_frame: audio samples per frame.
        random_positions: whether clips start anywhere; if not, they are the start of their file, for evaluation.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(
        self,
        files: Sequence[LabelledFile],
        *,
        num_frames: int,
        image_size: tuple[int, int],
        audio_samples_per_frame: int,
        random_positions: bool = True,
    ) -> None:
        if not files:
            raise ValueError("a data set needs at least one video file")
        self.files = list(files)
        self.num_frames = num_frames
        self.image_size = image_size
        self.audio_samples_per_frame = audio_samples_per_frame
        self.random_positions = random_positions

    def fingerprint(self) -> str:
        """Tells these videos from others: by a digest of their names, content and labels, and how clips are cut."""
        cut = (self.num_frames, self.image_size, self.audio_samples_per_frame, self.random_positions)
        return f"{files_digest(part for file in self.files for part in file)} {cut}"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Maps a draw to "video" [time, 3, height, width] in 0…1, "audio" [samples, 1] in -1…1 and "label".

        Raises:
            ValueError: a video that cannot be read, is too short or has no sound, naming the file.
        """
        path, label = self.files[draw.index]
        start, frames = self._frames(path, draw.seed)
        first, samples = start * self.audio_samples_per_frame, self.num_frames * self.audio_samples_per_frame
        sound = read_audio(path, FRAME_RATE * self.audio_samples_per_frame, first + samples)
        if not len(sound):
            raise ValueError(f"{path} has no sound; the model learns from pictures and sound: give a video with both")
        return {
            "video": prepare_video(frames),
            "audio": prepare_audio(sound[first:], samples),
            "label": torch.tensor(label),
        }

    def _frames(self, path: Path, seed: int) -> tuple[int, UInt8[np.ndarray, "frames height width 3"]]:
        """Reads the frames of the clip, and says which is the first; every start that leaves enough is as likely."""
        if not self.random_positions:
            return 0, read_video(path, self.image_size, self.num_frames)
        random = torch.Generator().manual_seed(seed)
        num_frames = math.floor(_duration(path, path.stat().st_mtime_ns) * FRAME_RATE + 1e-3)
        start = self._start(num_frames, random)
        try:
            return start, read_video(path, self.image_size, self.num_frames, start=start)
        except TooShortError as error:
            # The header promised more. Starts that there are were as likely as one another, and still are.
            start = self._start(error.num_frames, random)
            return start, read_video(path, self.image_size, self.num_frames, start=start)

    def _start(self, num_frames: int, random: torch.Generator) -> int:
        return int(torch.randint(max(num_frames - self.num_frames, 0) + 1, (), generator=random))


@lru_cache(maxsize=100_000)
def _duration(path: Path, changed: int) -> float:
    # Some files say it only to those who go through them.
    return video_duration(path)
