"""Converted checkpoints (`.pth`) from somebody's Google Drive folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from perceiver_io.atomic import check_replaceable
from perceiver_io.models.config import ModelConfig
from perceiver_io.optional import needs_extra
from perceiver_io.presets import create_config, model_from_config
from perceiver_io.weights.downloads.http import DownloadError
from perceiver_io.weights.downloads.released import RELEASED, Downloaded, places
from perceiver_io.weights.downloads.storage import HashRecord, sole_user
from perceiver_io.weights.jobr0 import name_table, recognises
from perceiver_io.weights.saving import CONFIG_FILE, MODEL_FILES, check_state_dict, save_checkpoint
from perceiver_io.weights.state_dicts import read_source
from perceiver_io.weights.tables import apply_table

# The folder of JOBR0/PerceiverIO_Pytorch: the six released models, under that port's names.
JOBR0_FOLDER = "https://drive.google.com/drive/folders/1ks00isq02LaACvE405dIwZqUfWxC0irV"


def download_from_google_drive(
    preset: str, folder_url: str = JOBR0_FOLDER, *, cache: Path | None = None, force: bool = False
) -> Downloaded:
    """Maps a preset's name to the model in the cache, taken from a shared folder unless it is there already.

    The folder, or one in it, holds `PRESET.pth`, `PRESET/model.pth`, or a `.pth` file with the released file's name:
    the weights of the preset, as `perceiver-io convert --format pth` writes them or under JOBR0's names. As with
    `download_checkpoint`, the file's hash is recorded with the first download.

    Args:
        folder_url: https://drive.google.com/drive/folders/… of a folder that anyone with the link can see; by default
            JOBR0's.
        cache: a directory other than `cache_directory()`, where `load_model` looks names up.
        force: fetch again what is there.

    Raises:
        ValueError: for an unknown preset, an address of another kind, or a file that has changed or is not the
            preset's.
        ImportError: gdown is missing; it comes with the `download` extra.
        OSError: if the file cannot be found or fetched (`DownloadError`) or written.
    """
    directory, downloads = places(preset, cache)
    match = re.match(r"https://drive\.google\.com/drive/(?:u/\d+/)?folders/([-\w]+)(?:[/?#]|$)", folder_url)
    if match is None:
        raise ValueError(f"{folder_url!r} is not a shared folder; one is https://drive.google.com/drive/folders/…")
    if (directory / CONFIG_FILE).is_file() and not force:
        return Downloaded(preset=preset, directory=directory, sha256=None)
    check_replaceable(directory, MODEL_FILES if force else ())
    with needs_extra("downloading from Google Drive", "download"):
        import gdown
    with sole_user(downloads), tempfile.TemporaryDirectory(dir=downloads) as temporary:
        file = Path(temporary) / f"{preset}.pth"  # the name is ours, whatever the folder's are
        try:
            listed = gdown.download_folder(
                id=match[1], output=temporary, quiet=True, use_cookies=False, skip_download=True, timeout=60
            )
            chosen = _choose(preset, listed, folder_url)
            gdown.download(id=chosen.id, output=str(file), use_cookies=False, timeout=60, retries=4)
        except DownloadError:
            raise
        except (gdown.exceptions.DownloadError, OSError) as error:
            raise DownloadError(f"cannot fetch from {folder_url} ({error}); try again, or download by hand") from error
        record = HashRecord(downloads / file.name)
        sha256 = record.check(file)
        config = create_config(preset)
        state_dict = _state_dict(file, chosen.path, config)
        metadata = {"source": chosen.path, "source_url": folder_url, "source_sha256": sha256, "preset": preset}
        save_checkpoint(config, state_dict, directory, metadata=metadata, overwrite=force)
        record.write(sha256)
    return Downloaded(preset=preset, directory=directory, sha256=sha256)


def _state_dict(file: Path, name: str, config: ModelConfig) -> dict[str, Tensor]:
    """Reads the weights of a model, under our names or JOBR0's; `name` is what messages call the file."""
    try:
        source = read_source(file)
        if recognises(source.tensors, None):
            return apply_table(name_table(config), source.tensors, config, f"{name} does not fit")
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), name)) from error
    if source.nested_in is not None:
        raise ValueError(f"{name} is damaged (it holds something other than named tensors); convert or copy it again")
    with torch.device("meta"):
        expected = model_from_config(config).state_dict()
    check_state_dict(expected, source.tensors, name)
    return source.tensors


def _choose(preset: str, listed: list[Any], folder_url: str) -> Any:
    """Maps what a folder holds to the entry of the preset's weights."""
    released = f"{PurePosixPath(RELEASED[preset]).stem}.pth"
    fitting = []
    for entry in listed:
        path = PurePosixPath(entry.path)
        if path.name in (f"{preset}.pth", released) or path.parts[-2:] == (preset, "model.pth"):
            fitting.append(entry)
    if len(fitting) != 1:
        raise DownloadError(
            f"{folder_url} must hold one of {preset}.pth, {preset}/model.pth and {released}; "
            f"it holds {', '.join(sorted(entry.path for entry in listed)) or 'nothing'}"
        )
    return fitting[0]
