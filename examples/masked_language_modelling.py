"""Fills in the masked bytes of a text."""

from collections.abc import Sequence
from pathlib import Path

import common
import torch
from torch import Tensor

from perceiver_io import LanguagePerceiver
from perceiver_io.inputs import BytesTokenizer
from perceiver_io.visualize import draw_masked_text

SMALL = {
    "max_seq_len": 256,
    "embed_channels": 64,
    "num_latents": 32,
    "num_latent_channels": 64,
    "num_self_attends_per_block": 2,
    "qk_channels": 64,
}
MASK = "[MASK]"
CANDIDATES = 5


def read_text(path: Path) -> str:
    """Text file → its text.

    Raises:
        ValueError: the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def tokenize(text: str, phrases: Sequence[str]) -> Tensor:
    """Text → token ids, with each `[MASK]` and each byte of the phrases masked.

    Raises:
        ValueError: a phrase that the text does not have, or nothing to mask.
    """
    for phrase in phrases:
        if not phrase or phrase not in text:
            raise ValueError(f"--mask {phrase!r} is not in the text; give a part of it, letter by letter")
        text = text.replace(phrase, MASK * len(phrase.encode()))
    if MASK not in text:
        raise ValueError(f"nothing is masked; name a part of the text with --mask, or write {MASK} for a byte")
    tokenizer = BytesTokenizer()
    mask = torch.tensor([tokenizer.mask_token])
    first, *others = (tokenizer.encode(piece) for piece in text.split(MASK))
    return torch.cat([first, *(part for other in others for part in (mask, other))])


def cut(tokens: Tensor, length: int) -> Tensor:
    """Tokens → at most `length` of them, around the masked ones.

    Raises:
        ValueError: the masked tokens lie further apart than that.
    """
    if len(tokens) <= length:
        return tokens
    masked = (tokens == BytesTokenizer.mask_token).nonzero()[:, 0]
    first, last = int(masked[0]), int(masked[-1])
    if last - first >= length:
        raise ValueError(
            f"the masked bytes span {last - first + 1} bytes of text, more than the {length} that the model reads; "
            "mask fewer or shorten the text"
        )
    print(f"the text has {len(tokens)} bytes; the model reads the {length} around the mask")
    start = min(max((first + last + 1 - length) // 2, 0), len(tokens) - length)
    return tokens[start : start + length]


def report(tokens: Tensor, probabilities: Tensor) -> str:
    """Tokens and predictions → the text before and after, and a line of candidates for each masked byte."""
    tokenizer = BytesTokenizer()
    masked = tokens == tokenizer.mask_token
    marked = MASK.join(tokenizer.decode(piece) for piece in torch.tensor_split(tokens, masked.nonzero()[:, 0]))
    filled = tokenizer.decode(torch.where(masked, probabilities.argmax(-1), tokens))
    lines = [f"masked: {marked.strip()}", f"filled: {filled.strip()}"]
    for position in masked.nonzero()[:, 0].tolist():
        best = probabilities[position].topk(CANDIDATES)
        candidates = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        lines.append(
            f"byte {position:4}: "
            + "  ".join(f"{tokenizer.describe(token):>6} {share:5.1%}" for token, share in candidates)
        )
    return "\n".join(lines)


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = common.argument_parser(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, default=common.SAMPLES / "sentence.txt", help="a UTF-8 text file")
    source.add_argument("--text", help="the text itself")
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="PHRASE",
        help=f"mask the phrase wherever it occurs (works best with the space before it); {MASK} masks one byte",
    )
    arguments = parser.parse_args(argv)
    with common.reported_errors():
        path = common.result_path(arguments.output, "masked_language_modelling", [".png", ".pdf", ".svg"])
        text = read_text(arguments.file) if arguments.text is None else arguments.text
        tokens = tokenize(text, arguments.mask)
        model = common.load_or_create(arguments, LanguagePerceiver, "language", SMALL)

        tokens = cut(tokens, model.config.max_seq_len)
        probabilities = model(tokens[None].to(arguments.device)).softmax(-1)[0].cpu()

        result = report(tokens, probabilities)
        print(result)
        with common.written(path) as file:
            draw_masked_text(tokens, probabilities, CANDIDATES).savefig(file)
        with common.written(path.with_suffix(".txt")) as file:
            file.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
