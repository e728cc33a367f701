"""The Hugging Face hub: another source of the released models, and of everybody's.

Cache, resumed transfers, tokens and offline mode (`HF_HUB_OFFLINE=1`) are huggingface_hub's own business.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from perceiver_io.atomic import check_replaceable
from perceiver_io.optional import needs_extra
from perceiver_io.presets import PRESETS
from perceiver_io.weights.downloads.http import DownloadError
from perceiver_io.weights.downloads.released import Downloaded, places
from perceiver_io.weights.downloads.storage import HashRecord, sole_user
from perceiver_io.weights.importing import convert_source
from perceiver_io.weights.saving import CONFIG_FILE, MODEL_FILES
from perceiver_io.weights.state_dicts import WEIGHTS, weight_files

# transformers' conversions of the released models, by preset.
HUB_REPOSITORIES = {
    "language": "deepmind/language-perceiver",
    "imagenet-fourier": "deepmind/vision-perceiver-fourier",
    "imagenet-learned": "deepmind/vision-perceiver-learned",
    "imagenet-conv": "deepmind/vision-perceiver-conv",
    "optical-flow": "deepmind/optical-flow-perceiver",
    "video-autoencoding": "deepmind/multimodal-perceiver",
}


def download_from_hub(
    preset: str, *, cache: Path | None = None, force: bool = False, revision: str | None = None
) -> Downloaded:
    """Maps a preset's name to the released model in the cache, taken from the hub unless it is there already.

    As with `download_checkpoint`, hashes are recorded with the first download.

    Args:
        cache: a directory other than `cache_directory()`, where `load_model` looks names up.
        force: convert again what is there.
        revision: branch, tag or commit of the repository.

    Raises:
        ValueError: for an unknown preset, or weights that have changed or are not the preset's.
        ImportError: huggingface_hub is missing; it comes with the `hub` extra.
        OSError: if a file cannot be fetched (`DownloadError`) or written.
    """
    directory, downloads = places(preset, cache)
    if (directory / CONFIG_FILE).is_file() and not force:
        return Downloaded(preset=preset, directory=directory, sha256=None)
    check_replaceable(directory, MODEL_FILES if force else ())
    repository = HUB_REPOSITORIES[preset]
    with sole_user(downloads):
        snapshot = fetch_snapshot(repository, revision=revision)
        files = weight_files(snapshot)
        records = [HashRecord(downloads / file.name) for file in files]
        hashes = [record.check(file) for record, file in zip(records, files, strict=True)]
        metadata = {"source": repository, "source_url": f"{_endpoint()}/{repository}", "preset": preset}
        try:
            # The sizes are known, whatever the repository's config.json says or leaves out.
            sizes = PRESETS[preset].to_dict()
            imported = convert_source(
                snapshot, directory, kind="transformers", config_overrides=sizes, metadata=metadata, overwrite=force
            )
        except ValueError as error:
            raise ValueError(f"{repository} is not the model of {preset} and was not kept: {error}") from error
        for record, sha256 in zip(records, hashes, strict=True):
            record.write(sha256)
    return Downloaded(preset=preset, directory=directory, sha256=imported.sha256)


def fetch_snapshot(repository: str, *, revision: str | None = None) -> Path:
    """Maps a repository of the hub to a directory with its `config.json` and weights, in huggingface_hub's cache.

    Raises:
        ImportError: huggingface_hub is missing; it comes with the `hub` extra.
        DownloadError: if it cannot be fetched, or holds no such files.
    """
    with needs_extra("downloading from the hub", "hub"):
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    def fetch(name: str) -> Path:
        return Path(
            huggingface_hub.hf_hub_download(
                repository, name, revision=revision, endpoint=_endpoint(), library_name="perceiver-io"
            )
        )

    try:
        snapshot = fetch("config.json").parent
        for name in (file for weights in WEIGHTS for file in (weights, f"{weights}.index.json")):
            try:
                fetched = fetch(name)
            except EntryNotFoundError:
                continue
            if name.endswith(".index.json"):
                for shard in _shards(fetched):
                    fetch(shard)
            return snapshot
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DownloadError(f"cannot fetch {repository} from {_endpoint()} ({reason}); try again later") from error
    raise DownloadError(f"{repository} has neither {' nor '.join(WEIGHTS)}; only repositories with weights will do")


def _shards(index: Path) -> list[str]:
    try:
        return sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DownloadError(f"{index} is damaged ({error}); remove it and try again") from error


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
