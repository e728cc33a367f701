"""Computes how every pixel moves from one frame to the next."""

from collections.abc import Sequence
from pathlib import Path

import common
import torch

from perceiver_io import OpticalFlowPerceiver
from perceiver_io.inputs import load_image, prepare_frame, write_flo
from perceiver_io.visualize import draw_flow

# An untrained flow model finds no motion at all, whatever it sees: its last layer starts at zero.
SMALL = {
    "image_size": (120, 160),
    "num_bands": 8,
    "num_latents": 32,
    "num_latent_channels": 64,
    "num_self_attends_per_block": 2,
}


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument(
        "--frames",
        type=Path,
        nargs=2,
        metavar=("FIRST", "SECOND"),
        default=[common.SAMPLES / "frame_1.png", common.SAMPLES / "frame_2.png"],
        help="two pictures of one size, at least as large as the model's image_size",
    )
    arguments = parser.parse_args(argv)
    with common.reported_errors():
        path = common.result_path(arguments.output, "optical_flow", [".png", ".pdf", ".svg"])
        images = [load_image(frame) for frame in arguments.frames]
        sizes = [f"{height}×{width}" for height, width, _ in (image.shape for image in images)]
        if len(set(sizes)) > 1:
            raise ValueError(f"the frames have {' and '.join(sizes)} pixels; both must have the same size")
        model = common.load_or_create(arguments, OpticalFlowPerceiver, "optical-flow", SMALL)

        frames = [prepare_frame(image)[None].to(arguments.device) for image in images]
        flow = model(*frames, progress=common.progress("tiles"))[0].cpu()

        speed = flow.norm(dim=0)
        print(f"motion in pixels: mean {speed.mean():.2f}, fastest {speed.max():.2f}")
        if not speed.any():
            print("no motion anywhere: the last layer of an untrained flow model is zero")
        with common.written(path) as file:
            draw_flow(*images, flow).savefig(file)
        with common.written(path.with_suffix(".flo")) as file:
            write_flo(file, flow)


if __name__ == "__main__":
    main()
