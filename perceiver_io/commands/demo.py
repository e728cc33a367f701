"""Runs all five tasks with the small models that come with the library, and writes a page with the results."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from perceiver_io.atomic import new_files
from perceiver_io.commands import classify, flow, generate, mlm, video
from perceiver_io.commands.demo_page import (
    TITLE,
    classified_pictures,
    continued_text,
    facts,
    filled_text,
    flow_panels,
    joined,
    page,
    rebuilt_video,
)
from perceiver_io.commands.models import add_device_argument
from perceiver_io.commands.page import Section
from perceiver_io.media import load_image, read_flo, write_mp4, write_wav
from perceiver_io.processors import FlowProcessor
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.version import __version__
from perceiver_io.weights.locations import sample

EXAMPLE = "perceiver-io demo --output outputs/demo"

TEXT = "This module defines a class that is used to read files. The function returns a list of all the names in it."
HIDDEN = ("that", "returns", "the")
PROMPT, NEW_BYTES = "This function returns a list of", 80
OTHERS = 2  # continuations that are drawn
PICTURES = tuple(f"digit_{digit}.png" for digit in (2, 3, 5, 6, 8, 9))
FRAMES, MOTION = ("textures_1.png", "textures_2.png"), "textures.flo"
VIDEO, VIDEO_CLIPS = "moving_shape.mp4", 4
PAGE = "index.html"
# In the page's head, whichever version wrote it.
MARK = f"<title>{TITLE.partition(':')[0]}:".encode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_device_argument(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/demo"),
        metavar="DIRECTORY",
        help="where the page and its files go (default: %(default)s)",
    )


class _Part(NamedTuple):
    """A task's part of the page, and of the JSON."""

    section: Section
    result: dict[str, Any]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs each model, and writes the page with what it found.

    Raises:
        FileExistsError: the directory holds files of these names that no demo wrote.
        ValueError, OSError, ImportError: what the user can mend.
    """
    started = time.perf_counter()
    parts = []
    with new_files(arguments.output) as folder:
        for number, task in enumerate((_text, _continuation, _images, _flow, _video), start=1):
            parts.append(task(folder, arguments.device))
            print(f"{number} of 5: {parts[-1].section.title}", file=sys.stderr)
        html = page(
            "One architecture, five tasks: text filled in and continued, images, motion, and video with sound. Small "
            "models that come with the library computed all of this here, in "
            f"{time.perf_counter() - started:.0f} seconds.",
            [part.section for part in parts],
            [module.EXAMPLE for module in (mlm, generate, classify, flow, video)],
            f"perceiver-io {__version__}, PyTorch {torch.__version__}, on {arguments.device}",
        )
        (folder / PAGE).write_text(html, encoding="utf-8")
        files = sorted(file.name for file in folder.iterdir())
        _check_kept(arguments.output, files)
    return {
        "page": str(arguments.output / PAGE),
        **{part.section.anchor: part.result for part in parts},
        "files": [str(arguments.output / name) for name in files],
    }


def _check_kept(directory: Path, files: list[str]) -> None:
    """Checks that nothing is replaced but what a demo wrote.

    Raises:
        FileExistsError: something else would be.
    """
    page = directory / PAGE
    if page.is_file() and MARK in page.read_bytes()[:2000]:
        return
    for path in (directory / name for name in files):
        if path.is_file():
            raise FileExistsError(f"{path} is there already, and no demo wrote it; choose another --output")


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    return f"wrote {result['page']} and {len(result['files']) - 1} files beside it; open it in a browser"


def _text(folder: Path, device: str) -> _Part:
    model, processor = mlm.load(mlm.BUNDLED, device)
    prediction = mlm.predict(model, processor, TEXT, HIDDEN)
    section = Section(
        "text",
        "Text filled in",
        "A text with three words hidden, and the bytes that the model puts in their place.",
        filled_text(prediction),
        _facts(mlm.BUNDLED, model, mlm.write(prediction, folder / "text.png")),
    )
    return _Part(section, mlm.result(prediction))


def _continuation(folder: Path, device: str) -> _Part:
    model = generate.load(generate.BUNDLED, device)
    likeliest, candidates = generate.continue_with_candidates(model, PROMPT, NEW_BYTES)
    prompt = ByteSequences().encode(PROMPT)
    draws = model.generate([prompt] * OTHERS, max_new_tokens=NEW_BYTES, temperature=0.6, seed=1)
    for _ in draws:
        pass
    others = [ByteSequences().decode(sequence[len(prompt) :]) for sequence in draws.sequences]
    (folder / "continuation.txt").write_text(
        "\n".join(f"{PROMPT}{text}" for text in (likeliest, *others)) + "\n", encoding="utf-8"
    )
    section = Section(
        "continuation",
        "Text continued",
        f"The beginning of a sentence, and the {NEW_BYTES} bytes that the model writes after it, one by one.",
        continued_text(PROMPT, likeliest, candidates, others),
        _facts(generate.BUNDLED, model, ["continuation.txt"]),
    )
    bytes_of_text = [[one._asdict() for one in byte] for byte in candidates]
    return _Part(section, {"prompt": PROMPT, "likeliest": likeliest, "bytes": bytes_of_text, "others": others})


def _images(folder: Path, device: str) -> _Part:
    model, processor = classify.load(classify.BUNDLED, device)
    pictures = [load_image(sample(name)) for name in PICTURES]
    predictions = [classify.predict(model, processor, processor(picture)) for picture in pictures]
    charts = [f"image_{number}.png" for number in range(1, len(pictures) + 1)]
    for picture, prediction, chart in zip(pictures, predictions, charts, strict=True):
        classify.write(picture, prediction, folder / chart)
    section = Section(
        "images",
        "Images named",
        "Handwritten digits that the model did not see in training, and what it takes them for.",
        classified_pictures(pictures, predictions),
        _facts(classify.BUNDLED, model, charts),
    )
    classes = [[one._asdict() for one in prediction] for prediction in predictions]
    return _Part(section, dict(zip(PICTURES, classes, strict=True)))


def _flow(folder: Path, device: str) -> _Part:
    model = flow.load(flow.BUNDLED, device)
    # Larger than what the model reads at once, so that it works with tiles.
    height, width = (2 * side for side in model.config.image_size)
    first, second = (load_image(sample(name))[:height, :width] for name in FRAMES)
    true = read_flo(sample(MOTION))[:, :height, :width]
    motion = flow.predict(model, FlowProcessor()(first, second))
    error = float((motion - true).norm(dim=0).mean())
    still = float(true.norm(dim=0).mean())
    section = Section(
        "flow",
        "Motion seen",
        f"Each pixel of the first frame, and where it is in the second. The model is off by {error:.2f} pixels on "
        f"average, where things move by {still:.2f}.",
        flow_panels(first, second, motion, true),
        _facts(flow.BUNDLED, model, flow.write(first, second, motion, folder / "flow.png")),
    )
    return _Part(section, {**flow.result(motion), "end_point_error": error})


def _video(folder: Path, device: str) -> _Part:
    model, processor = video.load(video.BUNDLED, device)
    prediction = video.predict(model, processor, sample(VIDEO), None, VIDEO_CLIPS)
    files = video.write(prediction, folder / "video.mp4")
    rate = prediction.sample_rate
    with tempfile.TemporaryDirectory() as temporary:
        plain, original = Path(temporary, "plain.mp4"), Path(temporary, "original.wav")
        write_mp4(plain, joined(prediction), audio=prediction.rebuilt_sound, sample_rate=rate)
        write_wav(original, prediction.sound, rate)
        wav = (folder / "video.wav").read_bytes()
        body = rebuilt_video(prediction, plain.read_bytes(), original.read_bytes(), wav)
    values = sum(part[0].numel() for part in processor(prediction.frames, prediction.sound, VIDEO_CLIPS))
    latents = model.config.num_latents * model.config.num_latent_channels
    section = Section(
        "video",
        "Video and sound rebuilt",
        f"{values:,} numbers of each clip of {processor.num_frames} frames go into {latents:,} numbers in "
        f"{model.config.num_latents} latents, from which the model rebuilds picture and sound and says what it sees.",
        body,
        _facts(video.BUNDLED, model, files),
    )
    return _Part(section, video.result(prediction))


def _facts(name: str, model: nn.Module, files: list[str]) -> str:
    return facts(name, sum(parameter.numel() for parameter in model.parameters()), files)
