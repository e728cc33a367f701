"""Graphics cards that models are trained on: their memory, and the most that they compute."""

from typing import NamedTuple

_GIB = 2**30


class Card(NamedTuple):
    """A card by its maker's data sheet, dense and without TF32, which PyTorch leaves off.

    Attributes:
        memory_bytes: on the card.
        float32_flops: multiplications and additions a second, each counted.
        half_flops: likewise, of bfloat16 and float16.
    """

    memory_bytes: int
    float32_flops: float
    half_flops: float

    def flops(self, precision: str) -> float:
        """The most operations a second at a precision of the products."""
        return self.float32_flops if precision == "float32" else self.half_flops


CARDS: dict[str, Card] = {
    "a100-40": Card(40 * _GIB, 19.5e12, 312e12),
    "a100-80": Card(80 * _GIB, 19.5e12, 312e12),
    "gh200": Card(96 * _GIB, 67e12, 989e12),
    "h100": Card(80 * _GIB, 67e12, 989e12),
    "h100-nvl": Card(94 * _GIB, 60e12, 835e12),
    "h100-pcie": Card(80 * _GIB, 51e12, 756e12),
    "h200": Card(141 * _GIB, 67e12, 989e12),
    "h200-nvl": Card(141 * _GIB, 60e12, 835e12),
    "l40s": Card(48 * _GIB, 91.6e12, 362e12),
    "rtx4090": Card(24 * _GIB, 82.6e12, 165.2e12),
}

# How the driver names them, after "NVIDIA"; parts of a card (MIG) and cards for laptops have longer names.
_DRIVER_NAMES = {
    "A100-PCIE-40GB": "a100-40",
    "A100-SXM4-40GB": "a100-40",
    "A100 80GB PCIe": "a100-80",
    "A100-SXM4-80GB": "a100-80",
    "GH200 480GB": "gh200",
    "GeForce RTX 4090": "rtx4090",
    "H100 80GB HBM3": "h100",
    "H100 NVL": "h100-nvl",
    "H100 PCIe": "h100-pcie",
    "H200": "h200",
    "H200 NVL": "h200-nvl",
    "L40S": "l40s",
}


def card_of(device_name: str) -> Card | None:
    """Maps the driver's name of a card, such as "NVIDIA H100 80GB HBM3", to its data; None for one not listed."""
    card = _DRIVER_NAMES.get(device_name.removeprefix("NVIDIA "))
    return None if card is None else CARDS[card]
