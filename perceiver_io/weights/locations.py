"""Places of models: the tiny ones that come with the library, with their sample inputs, and downloads."""

import os
from pathlib import Path

from perceiver_io.presets import PRESETS

_PACKAGE = Path(__file__).parents[1]


def find_model(directory: str | Path) -> Path:
    """Maps a directory, or the name of a bundled or downloaded model, to the directory of its files.

    Raises:
        FileNotFoundError: if there is neither.
    """
    path = Path(directory)
    name = str(path)
    if path.is_dir():
        return path
    if bundled := bundled_model(name):
        return bundled
    if name not in PRESETS:
        raise FileNotFoundError(
            f"there is no directory {name}; models with a name are the bundled "
            f"{', '.join(path.name for path in bundled_models()) or '(none here)'} and the released "
            f"{', '.join(PRESETS)}, which `perceiver-io download NAME` fetches"
        )
    downloaded = cache_directory() / name
    if not downloaded.is_dir():
        raise FileNotFoundError(
            f"{name} is neither a directory nor downloaded (there is no {downloaded}); "
            f"fetch it with: perceiver-io download {name}"
        )
    return downloaded


def bundled_model(name: str) -> Path | None:
    """Maps a name such as "tiny-language" to the directory of the model, or to None if there is no such model."""
    return {directory.name: directory for directory in bundled_models()}.get(name)


def bundled_models() -> list[Path]:
    """The directories of the bundled models, sorted by name."""
    # A checkout's folder may hold the user's own models too.
    return sorted(path.parent for path in _folder("pytorch_checkpoints").glob("tiny-*/config.json"))


def cache_directory() -> Path:
    """The directory of downloads: `$PERCEIVER_IO_CACHE`, or `perceiver_io` in the user's cache.

    Source: the XDG base directory specification, which ignores an `$XDG_CACHE_HOME` that is relative.
    """
    if own := os.environ.get("PERCEIVER_IO_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "perceiver_io"


def sample(name: str) -> Path:
    """Maps a name such as "balloon.jpg" to the path of the sample file.

    Raises:
        FileNotFoundError: for a name that no sample has, with those there are.
    """
    folder = _folder("samples", "examples/samples")
    samples = {path.name: path for path in folder.glob("*.*") if path.suffix not in (".md", ".py")}
    if name not in samples:
        raise FileNotFoundError(f"there is no sample {name!r}; samples are {', '.join(sorted(samples))}")
    return samples[name]


def _folder(installed: str, in_checkout: str | None = None) -> Path:
    """Folder of data in an installed package (setup.py maps it there) or else in a checkout."""
    folder = _PACKAGE / installed
    return folder if folder.is_dir() else _PACKAGE.parent / (in_checkout or installed)
