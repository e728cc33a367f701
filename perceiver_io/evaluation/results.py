"""The result of an evaluation, so that it can be cited: figures, weights, data, settings, versions."""

import hashlib
import importlib.util
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from perceiver_io.evaluation.protocol import Protocol
from perceiver_io.evaluation.running import Measured
from perceiver_io.optional import needs_extra
from perceiver_io.version import __version__
from perceiver_io.weights.locations import find_model
from perceiver_io.weights.saving import weights_sha256

_REASONS = 10


def check_packages() -> None:
    """Checks, before anything is measured, that the packages of the figures are there.

    Raises:
        ImportError: torchmetrics is missing; it comes with the `evaluate` extra.
    """
    with needs_extra("computing the figures", "evaluate"):
        if importlib.util.find_spec("torchmetrics") is None:  # importing it takes seconds, which an error need not
            raise ModuleNotFoundError(name="torchmetrics")


def identity_of(protocol: Protocol, name: str, checkpoint: str, device: str = "cpu") -> dict[str, Any]:
    """Says what is measured: a change of any of it makes it another evaluation.

    Args:
        name: of the protocol.
        checkpoint: directory or name of the model.
        device: kind of the device, since others round otherwise.

    Raises:
        FileNotFoundError: there is no such model.
    """
    return {
        "protocol": name,
        "settings": protocol.settings(),
        "weights' SHA-256": weights_sha256(find_model(checkpoint)),
        "data's fingerprint": hashlib.sha256(protocol.fingerprint().encode()).hexdigest(),
        "versions": {"perceiver_io": __version__, "torch": torch.__version__},
        "device": device,
    }


def results_of(protocol: Protocol, measured: Measured, identity: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
    """Maps what was measured to the result, as JSON can hold it; a figure that is not finite becomes None.

    Args:
        identity: see `identity_of`.
        notes: further entries, such as the command.
    """
    figures = protocol.figures(measured.outcomes)
    versions = {
        **identity["versions"],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", "torchmetrics")},
    }
    return {
        "protocol": identity["protocol"],
        "figures": {name: value if math.isfinite(value) else None for name, value in figures.items()},
        "units": dict(protocol.units),
        "published": {name: dict(values) for name, values in protocol.published.items()},
        "samples": len(measured.indices),
        "unreadable": {
            "number": len(measured.unreadable),
            "first": dict(sorted(measured.unreadable.items())[:_REASONS]),
        },
        "settings": identity["settings"],
        "weights": {"sha256": identity["weights' SHA-256"]},
        "data": {"description": protocol.description, "fingerprint": identity["data's fingerprint"]},
        "versions": versions,
        **notes,
    }


def worst(protocol: Protocol, measured: Measured, number: int) -> list[int]:
    """Maps what was measured to the numbers of the samples that the model did worst on, the worst first."""
    badness = protocol.badness(measured.outcomes).nan_to_num(nan=math.inf)
    order = badness.sort(descending=True, stable=True).indices[:number].tolist()
    return [measured.indices[place] for place in order]


def output_files(directory: Path) -> tuple[Path, Path]:
    """Names the files of a finished evaluation: its result, and the page of the worst examples."""
    return directory / "results.json", directory / "worst.html"
