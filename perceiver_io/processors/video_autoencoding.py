"""Video autoencoding: from videos with sound to model input, from outputs to frames, sound and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from perceiver_io.checks import check_task
from perceiver_io.media import FRAME_RATE, fit_frame, read_audio, read_video, sound_samples, to_frames
from perceiver_io.media.arrays import is_array
from perceiver_io.models import VideoAutoencodingConfig, VideoAutoencodingPerceiver
from perceiver_io.processors.class_names import ClassProbability, kinetics700_classes, likeliest_classes, name_classes
from perceiver_io.processors.pictures import to_video
from perceiver_io.processors.preparation import prepare_audio, prepare_video

# A file, an array [frames, height, width, 3] or a tensor [frames, 3, height, width], or another form of `to_video`.
Video: TypeAlias = str | Path | np.ndarray | Tensor
# A file, or samples [samples, channels] or [samples]: see `sound_samples`.
Sound: TypeAlias = str | Path | np.ndarray | Tensor


class Clips(NamedTuple):
    """The input of a `VideoAutoencodingPerceiver`: `model(*clips)`."""

    video: Float32[Tensor, "batch frames 3 height width"]
    audio: Float32[Tensor, "batch samples 1"]


class RebuiltClip(NamedTuple):
    """A clip as the model rebuilt it.

    Attributes:
        frames: values 0…255.
        sound: values -1…1.
        classes: the likeliest, best first.
    """

    frames: UInt8[np.ndarray, "frames height width 3"]
    sound: Float32[Tensor, "samples 1"]
    classes: list[ClassProbability]


class VideoProcessor:
    """Maps videos to what a `VideoAutoencodingPerceiver` reads, and its outputs to videos and names (video colab).

        processor = VideoProcessor.for_model(model)
        clip = processor.rebuilt(model(*processor("clip.mp4")))[0]

    Args:
        num_frames: of a clip.
        image_size: (height, width) of a frame.
        audio_samples_per_frame: sets the sound's rate, in relation to `frame_rate`.
        class_names: one for each class.
        frame_rate: frames a second.
    """

    def __init__(
        self,
        num_frames: int,
        image_size: tuple[int, int],
        audio_samples_per_frame: int,
        class_names: Sequence[str],
        frame_rate: int = FRAME_RATE,
    ) -> None:
        self.num_frames = num_frames
        self.image_size = image_size
        self.num_samples = num_frames * audio_samples_per_frame
        self.class_names = tuple(class_names)
        self.frame_rate = frame_rate
        self.sample_rate = frame_rate * audio_samples_per_frame

    @classmethod
    def for_model(cls, model: VideoAutoencodingPerceiver, class_names: Sequence[str] | None = None) -> VideoProcessor:
        """Makes the processor for a model's sizes and classes.

        Args:
            class_names: None for those of Kinetics-700, where the model has as many classes; else they are numbered.

        Raises:
            ValueError: a model of another task, or names for another number of classes.
        """
        check_task("VideoProcessor", model, VideoAutoencodingConfig)
        config = model.config
        names = name_classes(config.num_classes, class_names, kinetics700_classes())
        return cls(config.num_frames, config.image_size, config.audio_samples_per_frame, names)

    def __call__(
        self,
        videos: Video | Sequence[Video],
        sounds: Sound | Sequence[Sound | None] | None = None,
        num_clips: int = 1,
    ) -> Clips:
        """Maps videos to the model's input, a batch even of one clip.

        Args:
            videos: one, or a list of several.
            sounds: of each video; None takes the file's own, and silence with arrays.
            num_clips: to take of each video, one after the other from its start.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a video or a sound, or a video that is too short.
            ImportError: PyAV is missing and files are given; it comes with the `examples` extra.
        """
        if not isinstance(videos, list | tuple) or is_array(videos):
            videos, sounds = [videos], [sounds]  # type: ignore[list-item]  # one of each
        sounds = [None] * len(videos) if sounds is None else sounds
        if not isinstance(sounds, list | tuple) or len(videos) != len(sounds) or not videos:
            raise ValueError("give at least one video, and a list with a sound (or None) for each")
        clips = [self._clips(video, sound, num_clips) for video, sound in zip(videos, sounds, strict=True)]
        return Clips(*map(torch.cat, zip(*clips, strict=True)))

    def _clips(self, video: Video, sound: Sound | None, num_clips: int) -> Clips:
        prepared = prepare_video(self.frames(video, num_clips))
        if sound is None:
            sound = video if isinstance(video, str | Path) else torch.zeros(0, 1)
        audio = prepare_audio(self.sound(sound, num_clips), num_clips * self.num_samples)
        return Clips(prepared.unflatten(0, (num_clips, -1)), audio.unflatten(0, (num_clips, -1)))

    def frames(self, video: Video, num_clips: int = 1) -> UInt8[np.ndarray, "frames height width 3"]:
        """Reads the frames of a video's first clips, cropped and resized to the model's size.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a video, one that is too short, or fewer than one clip.
        """
        if num_clips < 1:
            raise ValueError(f"the number of clips ({num_clips}) must be at least 1")
        wanted = num_clips * self.num_frames
        if isinstance(video, str | Path):
            return read_video(video, self.image_size, wanted, self.frame_rate)
        # Only as much as is needed: a long video in floating values is large.
        pixels = to_video(video[:wanted] if hasattr(video, "__getitem__") else video)
        if len(pixels) < wanted:
            raise ValueError(f"the video has {len(pixels)} frames, and {wanted} are needed; give a longer one")
        return np.stack([fit_frame(frame, self.image_size) for frame in pixels])

    def sound(self, sound: Sound, num_clips: int = 1) -> Float32[Tensor, "samples channels"]:
        """Reads as many samples of a sound as the first clips need, or as there are; none of a silent file.

        Args:
            sound: a file of any rate; arrays and tensors have `sample_rate`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a sound.
        """
        wanted = num_clips * self.num_samples
        if isinstance(sound, str | Path):
            return read_audio(sound, self.sample_rate, wanted)
        return sound_samples(sound)[:wanted]

    def rebuilt(self, outputs: Mapping[str, Tensor], top: int = 5) -> list[RebuiltClip]:
        """Maps the model's outputs to frames, sound and likeliest classes of each clip.

        Raises:
            ValueError: an output is missing, or not finite.
        """
        missing = {"image", "audio", "label"} - set(outputs)
        if missing:
            raise ValueError(f"the outputs lack {', '.join(sorted(missing))}; decode all modalities")
        classes = likeliest_classes(outputs["label"], self.class_names, top)
        sounds = outputs["audio"].detach().float().cpu()
        if not sounds.isfinite().all():
            raise ValueError("the sound is not finite; the model's checkpoint is damaged, or its training failed")
        sounds = sounds.clamp(-1, 1)
        return [
            RebuiltClip(to_frames(video), sound, names)
            for video, sound, names in zip(outputs["image"], sounds, classes, strict=True)
        ]
