"""Fetches a released checkpoint, converts it and keeps it where `load_model` finds it by name."""

import argparse
from pathlib import Path
from typing import Any

from perceiver_io.weights.downloads import (
    JOBR0_FOLDER,
    RELEASED,
    Downloaded,
    DownloadError,
    Progress,
    download_checkpoint,
    download_from_google_drive,
    download_from_hub,
)
from perceiver_io.weights.downloads.progress import progress_on_stderr
from perceiver_io.weights.locations import cache_directory

EXAMPLE = "perceiver-io download imagenet-conv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.add_argument("preset", choices=list(RELEASED), metavar="PRESET", help=", ".join(RELEASED))
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", help="another address of the released file (http or https)")
    source.add_argument(
        "--from",
        dest="origin",
        choices=["bucket", "hub"],
        default="bucket",
        help="DeepMind's bucket (the default; the hub if it does not answer), or the Hugging Face hub; that needs: "
        "pip install 'perceiver-io-torch[hub]'",
    )
    source.add_argument(
        "--google-drive",
        nargs="?",
        const=JOBR0_FOLDER,
        metavar="FOLDER_URL",
        help="take PRESET.pth from a shared folder (default: that of JOBR0's port); needs: "
        "pip install 'perceiver-io-torch[download]'",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="where to keep it (default: $PERCEIVER_IO_CACHE, or perceiver_io in the user's cache)",
    )
    parser.add_argument("--force", action="store_true", help="fetch again what is there")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to where the model is, and what `load_model` takes to find it.

    Raises:
        ValueError: for an address of another kind, or a file that has changed or is not the preset's.
        ImportError: if gdown or huggingface_hub is needed and missing.
        OSError: if the file cannot be fetched or written.
    """
    cache = cache_directory() if arguments.cache_dir is None else arguments.cache_dir
    if arguments.google_drive is not None:
        downloaded = download_from_google_drive(
            arguments.preset, arguments.google_drive, cache=cache, force=arguments.force
        )
    elif arguments.origin == "hub":
        downloaded = download_from_hub(arguments.preset, cache=cache, force=arguments.force)
    else:
        with progress_on_stderr(arguments.preset) as progress:
            downloaded = _download(arguments, cache, progress)
    found_by_name = cache.resolve() == cache_directory().resolve()
    return {
        "preset": arguments.preset,
        "directory": str(downloaded.directory),
        "load": arguments.preset if found_by_name else str(downloaded.directory),
        "fetched": downloaded.sha256 is not None,
        "sha256": downloaded.sha256,
    }


def _download(arguments: argparse.Namespace, cache: Path, progress: Progress) -> Downloaded:
    """Takes the bucket's file, or what the hub has where the bucket does not answer."""
    try:
        return download_checkpoint(
            arguments.preset, url=arguments.url, cache=cache, force=arguments.force, progress=progress
        )
    except DownloadError as error:
        if arguments.url is not None:
            raise
        progress.note(f"{error}; trying the hub")
        try:
            return download_from_hub(arguments.preset, cache=cache, force=arguments.force)
        except (ImportError, DownloadError) as second:
            raise DownloadError(f"{error}; nor from the hub: {second}") from error


def describe(result: dict[str, Any]) -> str:
    """Maps where the model is to what a person reads of it."""
    if result["fetched"]:
        first = f"{result['preset']} is in {result['directory']} (the file's sha256 is {result['sha256']})"
    else:
        first = f"{result['preset']} was already in {result['directory']}; --force fetches it again"
    return f"{first}\nperceiver_io.load_model({result['load']!r}) reads it"
