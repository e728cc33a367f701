"""Squeezes a video and its sound through a few latents, rebuilds both, and names what is going on."""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from perceiver_io import VideoAutoencodingPerceiver
from perceiver_io.atomic import new_files
from perceiver_io.commands.models import (
    add_model_arguments,
    class_names,
    load_model,
    model_lines,
    model_notes,
    progress,
)
from perceiver_io.commands.results import add_output_argument, check_results, classes_lines, files_line, result_path
from perceiver_io.media import FRAME_RATE, write_gif, write_mp4, write_wav
from perceiver_io.outputs import check_finite, device_of
from perceiver_io.processors import ClassProbability, RebuiltClip, VideoProcessor
from perceiver_io.visualize import side_by_side
from perceiver_io.weights.locations import sample

EXAMPLE = "perceiver-io video --video clip.mp4 --clips 2"
BUNDLED = "tiny-video-autoencoding"


class Prediction(NamedTuple):
    """A video, and how a model rebuilt it.

    Attributes:
        frames: as the model read them.
        sound: as the model read it; shorter than the frames where the file's is.
        rebuilt_frames: clip by clip.
        rebuilt_sound: clip by clip.
        classes: of each clip, the likeliest first.
        sample_rate: of both sounds, in Hz.
    """

    frames: UInt8[np.ndarray, "frames height width 3"]
    sound: Float[Tensor, "samples channels"]
    rebuilt_frames: UInt8[np.ndarray, "frames height width 3"]
    rebuilt_sound: Float[Tensor, "samples 1"]
    classes: list[list[ClassProbability]]
    sample_rate: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model_arguments(parser, BUNDLED)
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video file (default: a sample)")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="a sound file, instead of the video's own sound")
    parser.add_argument(
        "--clips",
        type=int,
        default=1,
        metavar="NUMBER",
        help="clips of the model's num_frames frames to rebuild (default: %(default)s)",
    )
    add_output_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rebuilds clips, names the likeliest classes of each, and writes the files.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    path = result_path(arguments.output, "video_autoencoding", [".mp4", ".gif"])
    if arguments.clips < 1:
        raise ValueError(f"--clips {arguments.clips} must be at least 1")
    # The bundled model knows shapes only.
    video = arguments.video or sample("moving_shape.mp4" if arguments.checkpoint == BUNDLED else "balloon.mp4")
    check_results(arguments, path, [path.with_suffix(".wav")], [arguments.video, arguments.audio])
    with new_files(path.parent) as folder:
        model, processor = load(arguments.checkpoint, arguments.device)
        prediction = predict(model, processor, video, arguments.audio, arguments.clips)
        files = write(prediction, folder / path.name)
    return {
        **model_notes(arguments.checkpoint),
        **result(prediction),
        "files": [str(path.parent / file) for file in files],
    }


def load(checkpoint: str, device: str) -> tuple[VideoAutoencodingPerceiver, VideoProcessor]:
    """Loads the model of a checkpoint, and makes its processor.

    Raises:
        FileNotFoundError, ValueError: no such model, a damaged one or one of another kind, or no such device.
    """
    model = load_model(checkpoint, device, VideoAutoencodingPerceiver)
    return model, VideoProcessor.for_model(model, class_names(checkpoint))


@torch.inference_mode()
def predict(
    model: VideoAutoencodingPerceiver, processor: VideoProcessor, video: Path, audio: Path | None, num_clips: int
) -> Prediction:
    """Rebuilds the first clips of a video file, with its sound or another.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no video or no sound, or is too short, or the model's output is not finite.
    """
    frames = processor.frames(video, num_clips)
    sound = processor.sound(audio or video, num_clips)
    if audio and not len(sound):
        raise ValueError(f"{audio} has no sound; give a sound file, or leave out --audio")
    if len(sound) < num_clips * processor.num_samples:
        print(
            f"{len(sound) / processor.sample_rate:.2f} s of sound for {len(frames) / FRAME_RATE:.2f} s of video: "
            "the rest is silence",
            file=sys.stderr,
        )
    rebuilt: list[RebuiltClip] = []
    # One by one: a long video at once would not fit into memory.
    for number, clip in enumerate(zip(*processor(frames, sound, num_clips), strict=True), start=1):
        bar = progress(f"clip {number} of {num_clips}")
        outputs = model(*(part[None].to(device_of(model)) for part in clip), progress=bar)
        rebuilt += processor.rebuilt({name: check_finite(output) for name, output in outputs.items()})
    return Prediction(
        frames=frames,
        sound=sound,
        rebuilt_frames=np.concatenate([clip.frames for clip in rebuilt]),
        rebuilt_sound=torch.cat([clip.sound for clip in rebuilt]),
        classes=[clip.classes for clip in rebuilt],
        sample_rate=processor.sample_rate,
    )


def write(prediction: Prediction, path: Path) -> list[str]:
    """Writes the video beside the rebuilt one, with the rebuilt sound, and that sound alone; returns their names."""
    comparison = side_by_side(prediction.frames, prediction.rebuilt_frames)
    if path.suffix == ".gif":
        write_gif(path, comparison)
    else:
        write_mp4(path, comparison, audio=prediction.rebuilt_sound, sample_rate=prediction.sample_rate)
    sound = path.with_suffix(".wav")
    write_wav(sound, prediction.rebuilt_sound, prediction.sample_rate)
    return [path.name, sound.name]


def result(prediction: Prediction) -> dict[str, Any]:
    """Maps a rebuilt video to what JSON can hold."""
    return {
        "seconds": len(prediction.frames) / FRAME_RATE,
        "seconds_of_sound": len(prediction.sound) / prediction.sample_rate,
        "clips": [{"classes": [one._asdict() for one in classes]} for classes in prediction.classes],
    }


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    lines = model_lines(result)
    for number, clip in enumerate(result["clips"], start=1):
        lines += [f"clip {number}:", *classes_lines(clip["classes"])]
    return "\n".join([*lines, files_line(result["files"])])
