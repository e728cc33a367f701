"""Fetching released checkpoints, and keeping them where `load_model` finds them by name."""

from perceiver_io.weights.downloads.google_drive import JOBR0_FOLDER, download_from_google_drive
from perceiver_io.weights.downloads.http import DownloadError, fetch
from perceiver_io.weights.downloads.hub import HUB_REPOSITORIES, download_from_hub, fetch_snapshot
from perceiver_io.weights.downloads.progress import Progress
from perceiver_io.weights.downloads.released import RELEASED, Downloaded, download_checkpoint

__all__ = [
    "HUB_REPOSITORIES",
    "JOBR0_FOLDER",
    "RELEASED",
    "DownloadError",
    "Downloaded",
    "Progress",
    "download_checkpoint",
    "download_from_google_drive",
    "download_from_hub",
    "fetch",
    "fetch_snapshot",
]
