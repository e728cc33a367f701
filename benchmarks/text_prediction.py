"""Bits per byte of the small autoregressive model beside gzip, xz and a 5-gram model, on the same held-out text.

python -m benchmarks.text_prediction [--checkpoint MODEL]

The text is the prose that ships with Python (examples/tiny/python_prose.py), the split that the model was trained with.
gzip and xz are given the training text too: what they count is by how much the held-out text makes the compressed whole
larger. gzip looks back 32 KiB alone. The 5-gram model is interpolated by Witten and Bell's weights.
"""

import argparse
import gzip
import json
import lzma
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import perceiver_io
from perceiver_io.autoregressive import PerceiverAR, evaluate
from perceiver_io.processors import ByteSequences

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints a JSON object."""
    from tiny.python_prose import python_prose

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="tiny-autoregressive", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    prose = python_prose()
    learned, held_out = ([document.encode() for document in part] for part in prose)
    num_bytes = sum(map(len, held_out))
    model = perceiver_io.load_model(arguments.checkpoint)
    assert isinstance(model, PerceiverAR)
    sequences = [ByteSequences().encode(document, ends=True) for document in held_out]
    nats = {size: evaluate(model, sequences, size).nats for size in (model.config.num_latents, 32)}
    results = {
        "text": {"sha256": prose.digest, "held_out_bytes": num_bytes, "documents": len(held_out)},
        # The ends of documents are predicted too, and counted here.
        "model": nats[model.config.num_latents] / math.log(2) / num_bytes,
        "model, blocks of 32": nats[32] / math.log(2) / num_bytes,
        "5-gram": FiveGram(learned).bits(held_out) / num_bytes,
        **{
            name: (len(compress(join(learned + held_out))) - len(compress(join(learned)))) * 8 / num_bytes
            for name, compress in COMPRESSORS.items()
        },
        **{
            f"{name}, held-out text alone": len(compress(join(held_out))) * 8 / num_bytes
            for name, compress in COMPRESSORS.items()
        },
    }
    print(json.dumps(results, indent=2))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, 9),
    "xz -9e": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
}


def join(documents: Sequence[bytes]) -> bytes:
    """Maps documents to one text."""
    return b"\n\n".join(documents)


class FiveGram:
    """A model of bytes by the four before them.

    Args:
        documents: to count in.
    """

    ORDER = 5

    def __init__(self, documents: Sequence[bytes]) -> None:
        self.counts: list[dict[bytes, Counter[int]]] = [defaultdict(Counter) for _ in range(self.ORDER)]
        for document in documents:
            for place, byte in enumerate(document):
                for length in range(min(self.ORDER, place + 1)):
                    self.counts[length][document[place - length : place]][byte] += 1

    def probability(self, context: bytes, byte: int) -> float:
        """Maps a byte, after others, to its probability."""
        probability = 1 / 256
        for length in range(min(self.ORDER, len(context) + 1)):
            counted = self.counts[length].get(context[len(context) - length :])
            if counted is None:
                break
            total, kinds = counted.total(), len(counted)
            probability = (counted[byte] + kinds * probability) / (total + kinds)
        return probability

    def bits(self, documents: Sequence[bytes]) -> float:
        """Maps documents to the bits that they take."""
        return -sum(
            math.log2(self.probability(document[max(0, place - self.ORDER + 1) : place], byte))
            for document in documents
            for place, byte in enumerate(document)
        )


if __name__ == "__main__":
    main()
