"""Fills in the masked bytes of a text."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perceiver_io import LanguagePerceiver
from perceiver_io.atomic import new_files
from perceiver_io.commands.models import (
    add_model_arguments,
    load_model,
    model_lines,
    model_notes,
)
from perceiver_io.commands.results import add_output_argument, check_results, files_line, result_path
from perceiver_io.media import read_text
from perceiver_io.media.border import writing
from perceiver_io.outputs import check_finite, device_of
from perceiver_io.processors import FilledText, TextProcessor
from perceiver_io.processors.language import MASK, occurrences
from perceiver_io.visualize import draw_masked_text, save_figure
from perceiver_io.weights.locations import sample

EXAMPLE = "perceiver-io mlm --text 'Return the name of [MASK][MASK][MASK] file.'"
BUNDLED = "tiny-language"


class Prediction(NamedTuple):
    """A text as a model filled it in.

    Attributes:
        tokens: what it read, [length].
        probabilities: of each token at each place, [length, vocab].
        text: the same for a person.
    """

    tokens: Tensor
    probabilities: Tensor
    text: FilledText


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model_arguments(parser, BUNDLED)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, help="a UTF-8 text file (default: a sample)")
    source.add_argument("--text", help="the text itself")
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="PHRASE",
        help=f"mask the phrase wherever it occurs (works best with the space before it); {MASK} masks one byte",
    )
    add_output_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fills in a text, and writes it.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    path = result_path(arguments.output, "masked_language_modelling", [".png", ".pdf", ".svg", ".txt"])
    beside = [] if path.suffix == ".txt" else [path.with_suffix(".txt")]
    check_results(arguments, path, beside, [arguments.file])
    text = read_text(arguments.file or sample("sentence.txt")).strip() if arguments.text is None else arguments.text
    check_masked(text, arguments.mask)
    with new_files(path.parent) as folder:
        model, processor = load(arguments.checkpoint, arguments.device)
        prediction = predict(model, processor, text, arguments.mask)
        files = write(prediction, folder / path.name)
    return {
        **model_notes(arguments.checkpoint),
        **result(prediction),
        "files": [str(path.parent / file) for file in files],
    }


def check_masked(text: str, phrases: Sequence[str]) -> None:
    """Checks that a text has something to fill in.

    Raises:
        ValueError: a phrase that is not in the text, or nothing to mask.
    """
    for phrase in phrases:
        if not occurrences(text, phrase):
            raise ValueError(f"--mask {phrase!r} is not in the text; give a part of it, letter by letter")
    if not phrases and MASK not in text:
        raise ValueError(f"nothing is masked; name a part of the text with --mask, or write {MASK} for a byte")


def load(checkpoint: str, device: str) -> tuple[LanguagePerceiver, TextProcessor]:
    """Loads the model of a checkpoint, and makes its processor.

    Raises:
        FileNotFoundError, ValueError: no such model, a damaged one or one of another kind, or no such device.
    """
    model = load_model(checkpoint, device, LanguagePerceiver)
    return model, TextProcessor.for_model(model)


@torch.inference_mode()
def predict(model: LanguagePerceiver, processor: TextProcessor, text: str, phrases: Sequence[str]) -> Prediction:
    """Fills in a text with masks, or with phrases to mask.

    Raises:
        ValueError: the masks lie too far apart, or the model's output is not finite.
    """
    whole = processor.encode(text, phrases)
    tokens = processor.cut(whole)
    if len(tokens) < len(whole):
        print(f"the text has {len(whole)} bytes; the model reads the {len(tokens)} around the mask", file=sys.stderr)
    batch = processor.batch([tokens])
    logits = check_finite(model(*(part.to(device_of(model)) for part in batch))).cpu()
    return Prediction(tokens, logits[0].softmax(-1), processor.fill(batch, logits)[0])


def write(prediction: Prediction, path: Path) -> list[str]:
    """Writes the picture, unless `path` is a text file, and the text; returns their names."""
    if path.suffix != ".txt":
        save_figure(draw_masked_text(prediction.tokens, prediction.probabilities), path)
    text = path.with_suffix(".txt")
    with writing(text) as temporary:
        temporary.write_text(_report(result(prediction)) + "\n", encoding="utf-8")
    return list(dict.fromkeys([path.name, text.name]))


def result(prediction: Prediction) -> dict[str, Any]:
    """Maps a text filled in to what JSON can hold."""
    return {
        "masked": prediction.text.masked.strip(),
        "filled": prediction.text.filled.strip(),
        "masked_bytes": [
            {"position": byte.position, "candidates": [candidate._asdict() for candidate in byte.candidates]}
            for byte in prediction.text.masked_bytes
        ],
    }


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    return "\n".join([*model_lines(result), _report(result), files_line(result["files"])])


def _report(result: dict[str, Any]) -> str:
    """The text before and after, and a line of candidates for each masked byte."""
    lines = [f"masked: {result['masked']}", f"filled: {result['filled']}"]
    for byte in result["masked_bytes"]:
        candidates = (f"{one['name']:>6} {one['probability']:5.1%}" for one in byte["candidates"])
        lines.append(f"byte {byte['position']:4}: " + "  ".join(candidates))
    return "\n".join(lines)
