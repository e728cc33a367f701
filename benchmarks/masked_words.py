"""Share of the hidden bytes that the small language model finds in held-out text, over several draws of what is hidden.

python -m benchmarks.masked_words [--checkpoint MODEL] [--draws N] [--validation]

The text is the prose that ships with Python (examples/tiny/python_prose.py): documents that models neither learn from
nor are chosen by; with `--validation` those that they are chosen by.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import perceiver_io
from perceiver_io.training.data.text import TextWindows
from perceiver_io.training.language import MaskedLanguageEvaluation, MaskedWords, most_frequent_byte
from perceiver_io.training.tasks.language import MASKED

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints a JSON object."""
    from tiny.python_prose import python_prose

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="tiny-language", help="default: %(default)s")
    parser.add_argument("--draws", type=int, default=8, help="of what is hidden (default: %(default)s)")
    parser.add_argument("--validation", action="store_true", help="the documents by which recipes are chosen")
    arguments = parser.parse_args(argv)
    if arguments.draws < 2:
        parser.error(f"--draws ({arguments.draws}) must be at least 2, to have a spread")
    prose = python_prose()
    documents = [document.encode() for document in (prose.validation if arguments.validation else prose.test)]
    model = perceiver_io.load_model(arguments.checkpoint)
    length = model.config.max_seq_len
    learned = MaskedWords(TextWindows([document.encode() for document in prose.training], length), MASKED)
    windows = TextWindows(documents, length, random_positions=False)
    most_frequent = most_frequent_byte(learned)
    found = [
        MaskedLanguageEvaluation(dataset=MaskedWords(windows, MASKED), most_frequent=most_frequent, seed=draw)(model)
        for draw in range(1, arguments.draws + 1)
    ]
    figures = {name: [one[name] for one in found] for name in found[0]}
    results = {
        "text": {"sha256": prose.digest, "bytes": windows.num_bytes, "documents": len(documents)},
        "draws": arguments.draws,
        "mean": {name: statistics.mean(values) for name, values in figures.items()},
        "standard deviation": {name: statistics.stdev(values) for name, values in figures.items()},
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
