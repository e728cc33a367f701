"""Files of states: written at once or not at all, and with a SHA-256 of their content, by which damage is found out."""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perceiver_io.atomic import new_file

# The digest is the comment with which a ZIP file ends, as which PyTorch saves; so `torch.load` reads it all the same.
_MARK = b"sha256 "
_COMMENT = len(_MARK) + 64


def previous(path: Path) -> Path:
    """Maps the path of the last state to that of the one before: `state.pt` to `state.previous.pt`."""
    return path.with_suffix(f".previous{path.suffix}")


def write_state_file(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state; the one that is there is kept as `previous`.

    Raises:
        OSError: if it cannot be written, for instance to a full disk, with the file's name.
    """
    with named(path), new_file(path, keep=previous(path)) as temporary:
        _write(state, temporary)


def _write(state: Mapping[str, Any], path: Path) -> None:
    with path.open("w+b") as file:
        torch.save(state, file)
        file.seek(-2, os.SEEK_END)
        file.write(_COMMENT.to_bytes(2, "little"))
        file.flush()
        file.write(_MARK + digest(path).encode())


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turns what is raised at a full disk within the block into an error with the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch raises the latter while it handles the former
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        number = (cause.errno if isinstance(cause, OSError) else None) or errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def read_state_file(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        ValueError: if its content is not what its digest says, or no state.
    """
    _check_digest(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state["run"], dict) or not isinstance(state["step"], int):
            raise ValueError("it holds something else")
        if not state.keys() >= {"optimizer", "scaler"} or not state.keys() & {"model", "shards"}:
            raise ValueError("parts of it are missing")
    except Exception as error:  # whatever unpickling raises
        raise ValueError(first_line(error)) from error
    return state


def _check_digest(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        size = file.tell() - _COMMENT
        file.seek(max(size, 0))
        comment = file.read()
        if size < 0 or not comment.startswith(_MARK):
            raise ValueError("it does not end in a digest of its content")
        if comment[len(_MARK) :].decode("latin-1") != digest(path, size):
            raise ValueError("its content is not the one that its SHA-256 is of")


def digest(path: Path, size: int | None = None) -> str:
    """The SHA-256 of a file's first `size` bytes, or of all."""
    seen = hashlib.sha256()
    left = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            seen.update(block)
            left -= len(block)
    return seen.hexdigest()


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
