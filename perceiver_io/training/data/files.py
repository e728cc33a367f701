"""Files in a folder, as a data set wants them: without what is hidden, and each but once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

# Folders that systems and programs put beside the user's own, with files that look like the user's.
_OF_SYSTEMS = {"__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of the data: `._photo.jpg`, `.ipynb_checkpoints`, `.git`."""
    return name.startswith(".") or name in _OF_SYSTEMS


def data_files(directory: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Maps a folder to the files in it, however deep, in sorted order.

    Hidden files and folders are left out, and what is no file, such as a link that leads nowhere or a pipe. Links to
    files and folders are followed; each file and folder is taken once, so that a link to a folder above it ends.

    Args:
        directory: hidden or not.
        suffixes: that the files may have, in small letters.

    Raises:
        OSError: if a folder cannot be read, with its name.
    """
    return sorted(_files(Path(directory), tuple(suffixes), set()))


def _files(directory: Path, suffixes: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[Path]:
    if not _is_new(directory.stat(), seen):
        return
    with os.scandir(directory) as entries:
        visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    folders = []
    for entry in visible:
        try:
            if entry.is_dir():
                folders.append(Path(entry.path))
            elif entry.name.lower().endswith(suffixes) and entry.is_file() and _is_new(entry.stat(), seen):
                yield Path(entry.path)
        except OSError:  # a link in a circle
            continue
    for folder in folders:
        yield from _files(folder, suffixes, seen)


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    identity = (status.st_dev, status.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new
