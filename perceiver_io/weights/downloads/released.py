"""The released checkpoints: where they are, and from there to a model that `load_model` finds by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from perceiver_io.atomic import check_replaceable
from perceiver_io.weights.downloads.http import check_address, fetch
from perceiver_io.weights.downloads.progress import Progress
from perceiver_io.weights.downloads.storage import HashRecord, sole_user
from perceiver_io.weights.haiku_conversion import convert_file
from perceiver_io.weights.locations import cache_directory
from perceiver_io.weights.saving import CONFIG_FILE, MODEL_FILES

_BUCKET = "https://storage.googleapis.com/perceiver_io"
# By preset. Source: the reference's colabs.
RELEASED = {
    "language": f"{_BUCKET}/language_perceiver_io_bytes.pickle",
    "imagenet-fourier": f"{_BUCKET}/imagenet_fourier_position_encoding.pystate",
    "imagenet-learned": f"{_BUCKET}/imagenet_learned_position_encoding.pystate",
    "imagenet-conv": f"{_BUCKET}/imagenet_conv_preprocessing.pystate",
    "optical-flow": f"{_BUCKET}/optical_flow_checkpoint.pystate",
    "video-autoencoding": f"{_BUCKET}/video_autoencoding_checkpoint.pystate",
}


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A model in the cache; `sha256` is the downloaded file's, or None if the model was there already."""

    preset: str
    directory: Path
    sha256: str | None


def download_checkpoint(
    preset: str,
    *,
    url: str | None = None,
    cache: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Downloaded:
    """Maps a preset's name to the released model in the cache, fetching and converting its file unless it is there.

    The file's hash is recorded with the first download and must be the same in later ones. The file itself is removed
    once it is converted.

    Args:
        url: another address of the file.
        cache: a directory other than `cache_directory()`, where `load_model` looks names up.
        force: fetch and convert again what is there.
        progress: is told how far the transfer is.
        wait: pauses for some seconds before another attempt.

    Raises:
        ValueError: for an unknown preset, an address of another kind than http and https, or a file that has changed
            or is not the preset's.
        OSError: if the file cannot be fetched (`DownloadError`) or written.
    """
    directory, downloads = places(preset, cache)
    address = RELEASED[preset] if url is None else url
    check_address(address)
    if (directory / CONFIG_FILE).is_file() and not force:
        return Downloaded(preset=preset, directory=directory, sha256=None)
    check_replaceable(directory, MODEL_FILES if force else ())
    # The name is ours, whatever the address ends in.
    source = downloads / RELEASED[preset].rpartition("/")[2]
    with sole_user(downloads), fetch(address, source, progress=progress, wait=wait) as file:
        record = HashRecord(source)
        sha256 = record.check(file)
        metadata = {"source": source.name, "source_url": urlsplit(address)._replace(query="", fragment="").geturl()}
        try:
            convert_file(file, directory, preset, metadata=metadata, overwrite=force)
        except ValueError as error:
            reason = str(error).replace(str(file), "it")
            raise ValueError(f"{address} is not the checkpoint of {preset} and was not kept: {reason}") from error
        record.write(sha256)
    return Downloaded(preset=preset, directory=directory, sha256=sha256)


def places(preset: str, cache: Path | None) -> tuple[Path, Path]:
    """Maps a preset to the directories of its model and of what is downloaded for it.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in RELEASED:
        raise ValueError(f"there is no released checkpoint {preset!r}; there are {', '.join(RELEASED)}")
    cache = cache_directory() if cache is None else cache
    return cache / preset, cache / "downloads" / preset
