"""Computes how every pixel moves from one frame to the next.

`perceiver-io flow` does the same, with more options.
"""

from collections.abc import Sequence
from pathlib import Path

import common

import perceiver_io
from perceiver_io.media import load_image, write_flo
from perceiver_io.processors import FlowProcessor
from perceiver_io.visualize import draw_flow, save_figure
from perceiver_io.weights.locations import sample


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__, checkpoint="tiny-optical-flow")
    samples = [sample("textures_1.png"), sample("textures_2.png")]
    parser.add_argument("--frames", type=Path, nargs=2, default=samples, help="two pictures (default: samples)")
    arguments = parser.parse_args(argv)

    with common.results(arguments, *arguments.frames) as folder:
        model = perceiver_io.load_model(arguments.checkpoint).to(arguments.device)
        first, second = map(load_image, arguments.frames)
        frames = FlowProcessor()(first, second)
        flow = model(*(frame.to(arguments.device) for frame in frames))[0].cpu()
        print(f"mean motion in pixels: {flow.norm(dim=0).mean():.2f}")
        write_flo(folder / "optical_flow.flo", flow)
        save_figure(draw_flow(first, second, flow), folder / "optical_flow.png")


if __name__ == "__main__":
    main()
