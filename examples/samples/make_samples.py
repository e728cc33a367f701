"""Draws the sample inputs of the examples: a hot-air balloon over hills, still and moving, and a humming shape.

    python -m examples.samples.make_samples

Everything but the digits is drawn by this script, so that it is the project's own (CC0, see README.md). Running it
again gives the same pictures; the videos' files differ by a few bytes each time, as x264 encodes them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from examples.tiny.digits import Digits
from examples.tiny.moving_shapes import MovingShapes
from examples.tiny.moving_textures import MovingTextures
from perceiver_io.media import FRAME_RATE, SAMPLE_RATE, to_frames, write_flo, write_mp4
from perceiver_io.training import Draw

SAMPLES = Path(__file__).parent
OVERSAMPLING = 3  # drawn this much larger, then averaged: smooth edges

Canvas = Float[np.ndarray, "height width 3"]
Plane = Float[np.ndarray, "height width"]


def rgb(code: str) -> Float[np.ndarray, " 3"]:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64)


def ridge(x: Plane, base: float, height: float, seed: int) -> Plane:
    """Maps horizontal positions to the height of a chain of hills there, a sum of waves."""
    random = np.random.default_rng(seed)
    waves = [
        random.uniform(0.3, 1) / octave * np.sin(octave * 3.1 * x + random.uniform(0, 6)) for octave in (1, 2, 3, 5, 8)
    ]
    return base - height * sum(waves)


def draw_scene(height: int, width: int, time: float) -> UInt8[np.ndarray, "height width 3"]:
    """The scene at a time in seconds. Lengths are fractions of the picture's height; y points down.

    The hills pass by at speeds that grow with their nearness, while the balloon rises to the right.
    """
    rows, columns = height * OVERSAMPLING, width * OVERSAMPLING
    y, x = np.mgrid[0:rows, 0:columns] / rows
    centre = width / height / 2

    share = np.clip(y / 0.7, 0, 1)[..., None]
    canvas = rgb("3f7fc4") * (1 - share) + rgb("ffdcb4") * share
    sun = np.hypot(x - centre * 1.6, y - 0.55)
    canvas += (rgb("fff2c8") - canvas) * np.exp(-((sun / 0.16) ** 2))[..., None]

    for left, top, size in ((0.25, 0.16, 0.11), (0.95, 0.26, 0.08), (1.35, 0.1, 0.09)):
        cloud = np.zeros_like(x)
        for dx, dy, radius in ((-1.1, 0.15, 0.6), (0, 0, 1.0), (1.0, 0.1, 0.7), (1.9, 0.25, 0.4)):
            away = np.hypot((x - left - 0.02 * time - dx * size) / 1.5, y - top - dy * size) / (radius * size)
            cloud = np.maximum(cloud, 1 - np.clip((away - 0.75) / 0.25, 0, 1))
        canvas += (rgb("ffffff") - canvas) * 0.85 * cloud[..., None]

    for base, tall, seed, colour, speed in (
        (0.66, 0.07, 1, "7f93b4", 0.06),
        (0.76, 0.06, 5, "55856a", 0.15),
        (0.89, 0.04, 9, "3c6b34", 0.36),
    ):
        along = x + speed * time
        top = ridge(along, base, tall, seed)
        depth = np.clip((y - top) / 0.3, 0, 1)
        stripes = np.sin(60 * along + 40 * depth) * np.sin(22 * along - 90 * depth)
        shade = 1.08 - 0.35 * depth + 0.07 * stripes
        hill = np.clip(rgb(colour) * shade[..., None], 0, 255)
        canvas = np.where((y > top)[..., None], hill, canvas)

    draw_balloon(canvas, x, y, centre * 0.8 + 0.42 * time, 0.37 - 0.22 * time)
    pixels = canvas.reshape(height, OVERSAMPLING, width, OVERSAMPLING, 3).mean((1, 3))
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def draw_balloon(canvas: Canvas, x: Plane, y: Plane, left: float, top: float) -> None:
    """Paints the balloon over the canvas, its envelope's middle at (left, top)."""
    radius = 0.21
    across, down = (x - left) / radius, (y - top) / radius
    # Round above; below it narrows towards the basket.
    half_width = np.where(down < 0, np.sqrt(np.clip(1 - down**2, 0, 1)), 1 - 0.72 * np.clip(down / 1.3, 0, 1) ** 1.6)
    envelope = (np.abs(across) < half_width) & (down > -1) & (down < 1.3)
    longitude = np.arcsin(np.clip(across / np.maximum(half_width, 1e-6), -1, 1))
    panel = np.floor((longitude / np.pi + 0.5) * 9).astype(int).clip(0, 8)
    colours = np.stack([rgb("d8342c"), rgb("f6b72d"), rgb("f4efe2")])[panel % 3]
    band = (np.abs(down - 0.15) < 0.12)[..., None]
    light = 0.62 + 0.42 * np.cos(longitude - 0.5)
    painted = np.where(band, rgb("28518c"), colours) * light[..., None]
    canvas[envelope] = painted[envelope]

    ropes = (np.abs(np.abs(across) - 0.2 + 0.05 * (down - 1.3)) < 0.02) & (down >= 1.3) & (down < 1.62)
    canvas[ropes] = rgb("4a3a2a")
    basket = (np.abs(across) < 0.21) & (down >= 1.6) & (down < 1.9)
    weave = 1 + 0.18 * np.sign(np.sin(60 * across) * np.sin(50 * down))
    canvas[basket] = (rgb("8a5a2c") * weave[..., None])[basket]


def compose_tune(seconds: float) -> Float[torch.Tensor, "samples 1"]:
    """A rising arpeggio of plucked notes."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros_like(time)
    for start, semitones in zip(np.arange(0, seconds, 0.25), (0, 4, 7, 12, 9, 7, 4, 0), strict=False):
        since = np.clip(time - start, 0, None)
        note = 261.63 * 2 ** (semitones / 12)
        tone = sum(np.sin(2 * np.pi * k * note * since) / k**2 for k in (1, 2, 3))
        sound += 0.3 * tone * np.exp(-5 * since) * np.clip(since / 0.005, 0, 1)
    return torch.from_numpy(0.8 * sound / np.abs(sound).max()).float()[:, None]


def write_digits(digits: Sequence[int]) -> None:
    """Writes a picture of each digit, of those that the tiny image model was not trained on."""
    held_out = Digits(lambda picture, _: picture, held_out=True)
    for digit in digits:
        index = int((held_out.labels == digit).nonzero()[0])
        pixels = held_out.pictures[index].permute(1, 2, 0).numpy()
        Image.fromarray(pixels[..., 0]).save(SAMPLES / f"digit_{digit}.png", optimize=True)


def write_shapes() -> None:
    """Writes clips such as the tiny video model was trained on: a disc, a triangle, a ring and a crescent."""
    shapes = MovingShapes(1, num_frames=8, audio_samples_per_frame=SAMPLE_RATE // FRAME_RATE)
    clips = [shapes[Draw(0, seed)] for seed in (75, 83, 64, 136)]
    frames = to_frames(torch.cat([clip["video"] for clip in clips]))
    # Pixels large enough that MP4's coarser colours do no harm.
    enlarged = frames.repeat(8, axis=1).repeat(8, axis=2)
    write_mp4(SAMPLES / "moving_shape.mp4", enlarged, FRAME_RATE, torch.cat([clip["audio"] for clip in clips]))


def write_textures() -> None:
    """Writes a pair of frames such as the tiny flow model was trained on, but four times as large, and its motion."""
    pair = MovingTextures(1, image_size=(128, 192))[Draw(0, seed=7)]
    frames = to_frames((torch.stack([pair["frame1"], pair["frame2"]]) + 1) / 2)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(SAMPLES / f"textures_{number}.png", optimize=True)
    write_flo(SAMPLES / "textures.flo", pair["flow"])


def main() -> None:
    Image.fromarray(draw_scene(288, 384, 0.3)).save(SAMPLES / "balloon.jpg", quality=92)
    for number, time in ((1, 0.2), (2, 0.3)):
        Image.fromarray(draw_scene(240, 320, time)).save(SAMPLES / f"frame_{number}.png", optimize=True)
    seconds = 1.28  # two of the released model's 16-frame clips
    frames = [draw_scene(168, 224, 0.6 * index / FRAME_RATE) for index in range(round(seconds * FRAME_RATE))]
    write_mp4(SAMPLES / "balloon.mp4", np.stack(frames), FRAME_RATE, compose_tune(seconds), SAMPLE_RATE)
    write_shapes()
    write_textures()
    (SAMPLES / "sentence.txt").write_text(
        "This module defines a class [MASK][MASK][MASK][MASK] is used to read files. The function "
        "[MASK][MASK][MASK][MASK][MASK][MASK][MASK] a list of strings.\n",
        encoding="utf-8",
    )
    write_digits((2, 3, 5, 6, 8, 9))


if __name__ == "__main__":
    main()
