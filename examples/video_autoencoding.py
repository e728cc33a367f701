"""Squeezes a video and its sound through a few latents, rebuilds both, and names what is going on.

`perceiver-io video` does the same, with more options.
"""

from collections.abc import Sequence
from pathlib import Path

import common

import perceiver_io
from perceiver_io.media import write_mp4, write_wav
from perceiver_io.processors import VideoProcessor, read_class_names
from perceiver_io.visualize import side_by_side
from perceiver_io.weights.locations import find_model, sample


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__, checkpoint="tiny-video-autoencoding")
    parser.add_argument("--video", type=Path, default=sample("moving_shape.mp4"), help="a film (default: a sample)")
    arguments = parser.parse_args(argv)

    with common.results(arguments, arguments.video) as folder:
        model = perceiver_io.load_model(arguments.checkpoint).to(arguments.device)
        processor = VideoProcessor.for_model(model, read_class_names(find_model(arguments.checkpoint)))
        clips = processor(arguments.video)
        outputs = model(*(part.to(arguments.device) for part in clips))
        rebuilt = processor.rebuilt(outputs)[0]
        for name, probability in rebuilt.classes:
            print(f"{probability:6.1%}  {name}")
        film = side_by_side(processor.frames(arguments.video), rebuilt.frames)
        sound, rate = rebuilt.sound, processor.sample_rate
        write_mp4(folder / "video_autoencoding.mp4", film, audio=sound, sample_rate=rate)
        write_wav(folder / "video_autoencoding.wav", sound, rate)


if __name__ == "__main__":
    main()
