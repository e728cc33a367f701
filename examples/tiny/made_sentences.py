"""Made sentences in the layout of GLUE's SST-2, to try fine-tuning without GLUE: opinions that "not" turns around.

    python examples/tiny/made_sentences.py outputs/made

They are put together from a few dozen words by a rule; whoever knows the rule is always right. A figure on them says
that a recipe and a protocol work, and nothing of GLUE.
"""

import argparse
import itertools
from pathlib import Path

import torch

from perceiver_io.atomic import new_files

_THINGS = ("film", "book", "song", "story", "ending", "scene", "cast", "plot", "idea", "music")
_GOOD = ("splendid", "clever", "moving", "bright", "funny", "gentle")
_BAD = ("dreadful", "clumsy", "boring", "dull", "silly", "harsh")
_FRAMES = (
    ("the {thing} is {word}", False),
    ("the {thing} is not {word}", True),
    ("I found the {thing} {word}", False),
    ("nobody found the {thing} {word}", True),
    ("this {word} {thing} stays with you", False),
    ("there is nothing {word} in the {thing}", True),
)
# Of 720 sentences, so many are not learned from.
_HELD_OUT = 180


def sentences() -> list[tuple[str, int]]:
    """All sentences, in an order that is random and always the same, with 1 for praise and 0 for blame."""
    made = []
    for (frame, turns), thing, word in itertools.product(_FRAMES, _THINGS, (*_GOOD, *_BAD)):
        made.append((frame.format(thing=thing, word=word), int((word in _GOOD) != turns)))
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(0))
    return [made[number] for number in order.tolist()]


def write(folder: Path) -> None:
    """Writes `SST-2/train.tsv` and `SST-2/dev.tsv` into a folder."""
    made = sentences()
    with new_files(folder / "SST-2") as new:
        for name, part in (("train.tsv", made[_HELD_OUT:]), ("dev.tsv", made[:_HELD_OUT])):
            lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in part)]
            (new / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the folder SST-2")
    write(parser.parse_args().folder)
