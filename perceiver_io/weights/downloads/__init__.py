"""Fetching released checkpoints, and keeping them where `load_model` finds them by name."""

from perceiver_io.weights.downloads.google_drive import download_from_google_drive
from perceiver_io.weights.downloads.http import DownloadError, fetch
from perceiver_io.weights.downloads.progress import Progress
from perceiver_io.weights.downloads.released import RELEASED, Downloaded, download_checkpoint

__all__ = [
    "RELEASED",
    "DownloadError",
    "Downloaded",
    "Progress",
    "download_checkpoint",
    "download_from_google_drive",
    "fetch",
]
