"""Fills in the masked bytes of a text.

`perceiver-io mlm` does the same, with more options.
"""

from collections.abc import Sequence

import common

import perceiver_io
from perceiver_io.media import read_text
from perceiver_io.processors import TextProcessor
from perceiver_io.visualize import draw_masked_text, save_figure
from perceiver_io.weights.locations import sample


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__, checkpoint="tiny-language")
    parser.add_argument("--text", help="with [MASK] for each byte to fill in (default: a sample)")
    parser.add_argument("--mask", action="append", default=[], metavar="PHRASE", help="a part of the text to mask")
    arguments = parser.parse_args(argv)

    with common.results(arguments) as folder:
        model = perceiver_io.load_model(arguments.checkpoint).to(arguments.device)
        processor = TextProcessor.for_model(model)
        text = read_text(sample("sentence.txt")).strip() if arguments.text is None else arguments.text
        batch = processor(text, arguments.mask)
        logits = model(*(part.to(arguments.device) for part in batch)).cpu()
        filled = processor.fill(batch, logits)[0]
        print(f"masked: {filled.masked.strip()}\nfilled: {filled.filled.strip()}")
        (folder / "masked_language_modelling.txt").write_text(filled.filled.strip() + "\n", encoding="utf-8")
        figure = draw_masked_text(batch.tokens[0], logits[0].softmax(-1))
        save_figure(figure, folder / "masked_language_modelling.png")


if __name__ == "__main__":
    main()
