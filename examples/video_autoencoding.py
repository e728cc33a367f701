"""Squeezes a video and its sound through a few latents, rebuilds both, and names what is going on."""

from collections.abc import Sequence
from pathlib import Path

import common
import torch

from perceiver_io import VideoAutoencodingPerceiver
from perceiver_io.inputs import (
    FRAME_RATE,
    kinetics700_classes,
    prepare_audio,
    prepare_video,
    read_audio,
    read_video,
    to_frames,
    write_gif,
    write_mp4,
    write_wav,
)
from perceiver_io.visualize import side_by_side

SMALL = {
    "image_size": (56, 56),
    "num_image_bands": 8,
    "num_audio_bands": 16,
    "num_latents": 32,
    "num_latent_channels": 64,
    "num_self_attends_per_block": 2,
    "decoder_channels": 64,
    "label_query_channels": 64,
}


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--video", type=Path, default=common.SAMPLES / "balloon.mp4", help="a video file")
    parser.add_argument("--audio", type=Path, help="a sound file, instead of the video's own sound")
    parser.add_argument("--clips", type=int, default=1, help="clips of the model's num_frames frames to rebuild")
    arguments = parser.parse_args(argv)
    with common.reported_errors():
        if arguments.clips < 1:
            raise ValueError(f"--clips {arguments.clips} must be at least 1")
        path = common.result_path(arguments.output, "video_autoencoding", [".mp4", ".gif"])
        model = common.load_or_create(arguments, VideoAutoencodingPerceiver, "video-autoencoding", SMALL)

        config = model.config
        sample_rate = FRAME_RATE * config.audio_samples_per_frame
        num_frames, num_samples = arguments.clips * config.num_frames, arguments.clips * config.num_audio_samples
        frames = read_video(arguments.video, config.image_size, num_frames)
        sound = read_audio(arguments.audio or arguments.video, sample_rate, num_samples)
        if len(sound) < num_samples:
            print(f"{len(sound) / sample_rate:.2f} s of sound for {num_frames / FRAME_RATE:.2f} s of video: "
                  "the rest is silence")  # fmt: skip
        videos = prepare_video(frames).split(config.num_frames)
        sounds = prepare_audio(sound, num_samples).split(config.num_audio_samples)

        outputs = [
            model(
                video[None].to(arguments.device),
                audio[None].to(arguments.device),
                progress=common.progress(f"clip {number} of {arguments.clips}"),
            )
            for number, (video, audio) in enumerate(zip(videos, sounds, strict=True), start=1)
        ]
        rebuilt = to_frames(torch.cat([output["image"][0] for output in outputs]))
        rebuilt_sound = torch.cat([output["audio"][0] for output in outputs])

        for number, output in enumerate(outputs, start=1):
            print(f"clip {number}:")
            common.top_classes(output["label"][0], kinetics700_classes())
        comparison = side_by_side(frames, rebuilt)
        with common.written(path) as file:
            if path.suffix == ".gif":
                write_gif(file, comparison)
            else:
                write_mp4(file, comparison, audio=rebuilt_sound, sample_rate=sample_rate)
        with common.written(path.with_suffix(".wav")) as file:
            write_wav(file, rebuilt_sound, sample_rate)


if __name__ == "__main__":
    main()
