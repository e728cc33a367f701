"""Continues a text, music or any sequence of tokens, with a Perceiver AR."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from perceiver_io.atomic import new_files
from perceiver_io.autoregressive import PerceiverAR
from perceiver_io.commands.models import (
    add_model_arguments,
    load_model,
    model_lines,
    model_notes,
)
from perceiver_io.commands.results import add_output_argument, check_results, files_line, result_path
from perceiver_io.media import read_text
from perceiver_io.media.midi import read_midi, write_midi
from perceiver_io.outputs import check_finite, device_of
from perceiver_io.processors import BytesTokenizer, ClassProbability, likeliest_classes
from perceiver_io.processors.music import MusicTokenizer
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.terminal import printable

EXAMPLE = "perceiver-io generate --prompt 'The name of the file' --temperature 0.7 --seed 1"
BUNDLED = "tiny-autoregressive"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model_arguments(parser, BUNDLED)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", help="the text to continue, for models of bytes (default: the start of a text)")
    source.add_argument("--file", type=Path, help="a UTF-8 text file to continue")
    source.add_argument("--midi", type=Path, help="a MIDI file to continue, for models of music")
    source.add_argument("--tokens", metavar="IDS", help="ids to continue, such as '2 17 4', for any model")
    parser.add_argument("--samples", type=int, default=1, help="continuations (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="of a continuation (default: %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="lower is likelier; 0 takes the likeliest (default: %(default)s)"
    )
    parser.add_argument("--top-k", type=int, help="draw from the likeliest K tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens whose probabilities sum to P")
    parser.add_argument("--seed", type=int, help="of the draws (default: another one each time)")
    parser.add_argument(
        "--num-latents",
        default="full",
        help="latents at the start: a number, 'full', or 'official' for the reference's 1 (default: %(default)s)",
    )
    add_output_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Continues a prompt, and writes the continuations.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
    """
    if arguments.samples < 1:
        raise ValueError(f"--samples {arguments.samples} must be at least 1")
    suffix = ".mid" if arguments.midi is not None else ".txt"
    path = result_path(arguments.output, "generate", [suffix])
    paths = [path, *(path.with_stem(f"{path.stem}_{number}") for number in range(2, arguments.samples + 1))]
    check_results(arguments, path, paths[1:], [arguments.file, arguments.midi])
    with new_files(path.parent) as folder:
        model = load(arguments.checkpoint, arguments.device)
        prompt, stop_tokens = _prompt(model, arguments)
        sequences = _continue(model, prompt, stop_tokens, arguments)
        continuations = []
        for one, sequence in zip(paths, sequences, strict=True):
            if arguments.midi is not None:
                notes = MusicTokenizer().decode(sequence)
                write_midi(folder / one.name, notes)
                continuations.append(f"{len(notes)} notes, {max((note.end for note in notes), default=0):.1f} s")
            else:
                continuations.append(_text(model, sequence[len(prompt) :], arguments))
                whole = continuations[-1] if arguments.tokens else _text(model, sequence, arguments)
                (folder / one.name).write_text(whole + "\n", encoding="utf-8")
    return {
        **model_notes(arguments.checkpoint),
        "prompt": arguments.tokens or (str(arguments.midi) if arguments.midi else _text(model, prompt, arguments)),
        "continuations": continuations,
        "new_tokens": [len(sequence) - len(prompt) for sequence in sequences],
        "files": [str(one) for one in paths],
    }


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    many = len(result["continuations"]) > 1
    lines = [*model_lines(result), f"prompt: {result['prompt']}"]
    for number, continuation in enumerate(result["continuations"], start=1):
        lines.append(f"continuation{f' {number}' if many else ''}: {continuation}")
    return "\n".join([*lines, files_line(result["files"])])


def load(checkpoint: str, device: str) -> PerceiverAR:
    """Loads the command's model; see `load_model`."""
    model = load_model(checkpoint, device, PerceiverAR)
    if device_of(model).type == "cpu" and model.dtype == torch.float16:
        model = model.float()  # float16 is how small models are saved; CPUs are no faster with it
    return model


def continue_with_candidates(
    model: PerceiverAR, prompt: str, num_bytes: int, top: int = 5
) -> tuple[str, list[list[ClassProbability]]]:
    """Maps a text to its likeliest continuation, byte by byte, and to the likeliest candidates for each of these."""
    names = [BytesTokenizer().describe(token) for token in range(BytesTokenizer.vocab_size)]
    names = names[BytesTokenizer.vocab_size - 256 :]
    ids, candidates = ByteSequences().encode(prompt), []
    run = model.generate([ids], max_new_tokens=num_bytes, temperature=0, stop_tokens=[ByteSequences.end_token])
    for _ in run:
        bytes_alone = run.logits[0, ByteSequences.num_special_tokens :]
        candidates += likeliest_classes(bytes_alone.float()[None], names, top)
    return ByteSequences().decode(run.sequences[0][len(ids) :]), candidates


def _prompt(model: PerceiverAR, arguments: argparse.Namespace) -> tuple[list[int], list[int]]:
    """The ids to continue, and those that end a sequence."""
    vocab_size = model.config.vocab_size
    if arguments.tokens is not None:
        try:
            return [int(word) for word in arguments.tokens.replace(",", " ").split()], []
        except ValueError as error:
            raise ValueError(f"--tokens {arguments.tokens!r} must be numbers with spaces between") from error
    if arguments.midi is not None:
        if vocab_size != MusicTokenizer.vocab_size:
            raise ValueError(
                f"{arguments.checkpoint} has {vocab_size} tokens, and music has {MusicTokenizer.vocab_size}; give a "
                "model of music, or --prompt to one of text"
            )
        return MusicTokenizer().encode(read_midi(arguments.midi)).tolist(), []
    text = read_text(arguments.file) if arguments.file is not None else arguments.prompt or ""
    if vocab_size == ByteSequences.vocab_size:
        return ByteSequences().encode(text).tolist(), [ByteSequences.end_token]
    if vocab_size == BytesTokenizer.vocab_size:
        if not text:
            raise ValueError("this model has no start of a text; give some with --prompt")
        return BytesTokenizer().encode(text).tolist(), [BytesTokenizer.eos_token]
    raise ValueError(
        f"{arguments.checkpoint} has {vocab_size} tokens, which are not bytes; give ids of its own tokenizer with "
        "--tokens"
    )


def _continue(
    model: PerceiverAR, prompt: list[int], stop_tokens: list[int], arguments: argparse.Namespace
) -> list[list[int]]:
    chosen = arguments.num_latents
    num_latents: int | str = int(chosen) if chosen.isdecimal() else chosen
    run = model.generate(
        [prompt] * arguments.samples,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        stop_tokens=stop_tokens,
        seed=arguments.seed,
        num_latents=num_latents,
    )
    shows = sys.stderr.isatty() and arguments.samples == 1 and arguments.midi is None
    for tokens in run:
        check_finite(run.logits)
        if shows:
            print(printable(_text(model, tokens.tolist(), arguments)), end="", file=sys.stderr, flush=True)
    if shows:
        print(file=sys.stderr)
    return run.sequences


def _text(model: PerceiverAR, ids: list[int], arguments: argparse.Namespace) -> str:
    if arguments.tokens is not None:
        return " ".join(map(str, ids))
    if model.config.vocab_size == ByteSequences.vocab_size:
        return ByteSequences().decode(ids)
    return BytesTokenizer().decode(torch.tensor(ids, dtype=torch.int64))
