"""Maps a pickled Haiku checkpoint to flat dictionaries of NumPy arrays, without JAX, Haiku or trust in the file.

Unpickling usually means importing and calling whatever the file names. Here a name is only looked up in a
table of our own constructors, and the file is read in two passes: the first walks the pickle's instructions
without executing any and refuses a name that the table lacks; the second builds, with that table alone.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import pickle
import pickletools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import numpy as np

from perceiver_io.weights.pickled_arrays import ADMITTED, PickledArray, PystateError, shown

__all__ = ["HaikuCheckpoint", "PystateError", "read_pystate"]


@dataclass(frozen=True, kw_only=True)
class HaikuCheckpoint:
    """Contents of one file, under flat keys `module/path/name`, e.g. `image_preprocessor/~/conv2_d/w`.

    The arrays are C-contiguous and of the machine's byte order. Most are read-only: they view the bytes that
    were read, so that a checkpoint is in memory once. bfloat16 arrives as float32, which holds it exactly.
    """

    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    sha256: str


def read_pystate(path: str | os.PathLike[str]) -> HaikuCheckpoint:
    """A `.pystate`, `.pickle` or `.dill` file → its parameters, its state (batch norm's averages) and its hash.

    Raises:
        FileNotFoundError: there is no such file; the message says where the released ones are.
        PystateError: the file is of another format, is cut short, names anything but arrays and mappings, or
            holds something other than `{module: {name: array}}`, alone or as `{"params": ..., "state": ...}`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; the released checkpoints are fetched like this: "
            "curl -LO https://storage.googleapis.com/perceiver_io/imagenet_fourier_position_encoding.pystate"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of odd escapes in files that are no checkpoints
            return _read(path)
    except PystateError as error:  # every message says what the file is or does; its name comes first
        raise PystateError(f"{path} {error}") from error.__cause__


def _read(path: Path) -> HaikuCheckpoint:
    if path.is_dir():
        raise PystateError("is a folder; give the checkpoint file inside it")
    if not path.is_file():  # opening a pipe waits for whoever fills it
        raise PystateError("is no file on a disk; give the checkpoint file itself")
    with path.open("rb") as file:
        _refuse_other_formats(file.read(256), size=os.fstat(file.fileno()).st_size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickled:
            sha256 = _sha256(pickled)
            _refuse_foreign_names(pickled)
        file.seek(0)
        params, state = _split(_unpickle(file))
    return HaikuCheckpoint(params=_flatten("params", params), state=_flatten("state", state), sha256=sha256)


_OTHER_FORMATS = (
    (b"\x1f\x8b", "is gzip-compressed; gunzip it first"),
    (b"BZh", "is bzip2-compressed; bunzip2 it first"),
    (b"\xfd7zXZ", "is xz-compressed; unxz it first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unzstd it first"),
    (
        b"PK\x03\x04",
        "is a zip archive, as PyTorch's .pth and NumPy's .npz are; a pickled Haiku checkpoint is wanted",
    ),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a PyTorch .pth; a pickled Haiku checkpoint is wanted"),
    (b"\x93NUMPY", "is a NumPy .npy file; a pickled Haiku checkpoint is wanted"),
    (b"\x89HDF", "is an HDF5 file; a pickled Haiku checkpoint is wanted"),
    (b"version https://git-lfs", "is a Git LFS pointer; `git lfs pull` fetches the file that it stands for"),
)


def _refuse_other_formats(head: bytes, size: int) -> None:
    """Maps the first bytes and the size to nothing, or an error that says what the file is."""
    if size == 0:
        raise PystateError("is empty; download it again")
    for magic, message in _OTHER_FORMATS:
        if head.startswith(magic):
            raise PystateError(message)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise PystateError("is an HTML or XML page, perhaps a saved error message; download the file itself")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise PystateError("is a safetensors file; a pickled Haiku checkpoint is wanted")


def _sha256(pickled: mmap.mmap) -> str:
    digest = hashlib.sha256()
    with memoryview(pickled) as view:
        for start in range(0, len(view), 1 << 22):
            digest.update(view[start : start + (1 << 22)])
    return digest.hexdigest()


_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_OUTSIDE = {"PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
_LONGEST_NAME = 256
# Tuples, and what is made of them, that count as nested in what they are hashed for.
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD"}
_MOST_NESTED = 10_000
# Where instructions that hash have what they hash, among what they take from the stack.
_KEYS = {
    **dict.fromkeys(("SETITEM", "SETITEMS"), slice(1, None, 2)),
    **{"DICT": slice(0, None, 2), "ADDITEMS": slice(1, None), "FROZENSET": slice(0, None)},
}
_MOST_IN_A_KEY = 100
_SLACK = 2**20
# Modules and their arrays, over all; the released models have some hundreds.
_MOST_ARRAYS, _LONGEST_PATH = 20_000, 1000
_TRUNCATED = "is truncated: it ends before its pickle does; download it again"


def _refuse_foreign_names(pickled: mmap.mmap) -> None:
    """Maps the pickle's instructions to nothing, or an error naming the first thing asked for that is not admitted.

    Protocol 4 takes a name from the two texts on top of the stack. They count as known only when the last two
    instructions that touched the stack pushed a text or fetched a memoised one, which is what picklers write.
    A file that arrives at a name in any other way hides it, and is refused for that.
    """
    memo: dict[int, str | None] = {}
    sizes = _Sizes(len(pickled))
    below: str | None = None  # the two topmost entries of the stack, where they are known to be texts
    top: str | None = None
    argument: Any
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(cast(BinaryIO, pickled))):
            kind = opcode.name
            if kind == "PROTO":
                continue
            if kind == "FRAME":  # the unpickler would allocate what a frame claims to hold
                if argument > len(pickled) - (position or 0):
                    raise PystateError(_TRUNCATED)
                continue
            if kind in _PUTS:
                index = len(memo) if argument is None else argument
                if index > count:  # picklers count up; the unpickler would allocate all below the index
                    raise PystateError(f"memoises object {index} in step {count}, which no pickler does")
                memo[index] = top
                sizes.put(index)
                continue
            sizes.follow(opcode, argument)

            pushed: str | None = None
            if kind in _GETS:
                pushed = memo.get(argument)
            elif kind in _TEXTS:
                pushed = argument if len(argument) <= _LONGEST_NAME else None
            elif kind in {"GLOBAL", "INST"}:
                _refuse_unless_admitted(*argument.split(" ", 1))
            elif kind == "STACK_GLOBAL":
                if below is None or top is None:
                    raise PystateError(f"hides what it asks for at byte {position}; refused, nothing in it was run")
                _refuse_unless_admitted(below, top)
            elif kind.startswith("EXT"):
                _refuse(f"copyreg extension {argument}")
            elif kind in _OUTSIDE:
                _refuse(f"an object outside of the file ({kind})")
            below, top = top, pushed
    except PystateError:
        raise
    except ValueError as error:
        if pickled[:1] == b"\x80" and pickled.tell() >= len(pickled):
            raise PystateError(_TRUNCATED) from error
        raise PystateError(f"is not a pickle ({error}); give a .pystate or .pickle file") from error


class _Size(NamedTuple):
    """A part of a pickle's tree: tuples, and what else is hashed with all that it holds; bytes of data in them."""

    nodes: int = 1
    data: int = 0


class _Sizes:
    """Sizes of what is on a pickle's stack, with all that it holds, and that again.

    A few hundred bytes can nest tuples so that comparing or hashing one takes for ever, or ends the process, and can
    ask for the same data so often, each time a copy, that no memory is enough.

    Args:
        most_data: bytes that a file may take from its memo.
    """

    def __init__(self, most_data: int) -> None:
        self._stack: list[_Size] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Size] = {}
        self._left = most_data + _SLACK

    def put(self, index: int) -> None:
        """Follows an instruction that memoises what is on top."""
        self._memo[index] = self._stack[-1] if self._stack else _Size()

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Follows any other instruction.

        Raises:
            PystateError: if a tuple becomes too large, a key is no simple one, or data are used again and again.
        """
        name = opcode.name
        if name == "MARK":
            self._marks.append(len(self._stack))
            return
        before, after = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in before:
            start = self._marks.pop() if self._marks else 0
            start -= before.index(pickletools.markobject)
        else:
            start = len(self._stack) - len(before)
        taken = self._stack[max(start, 0) :]
        del self._stack[max(start, 0) :]
        if name in _KEYS and any(key.nodes > _MOST_IN_A_KEY for key in taken[_KEYS[name]]):
            raise PystateError(f"has a key of more than {_MOST_IN_A_KEY} parts, which no checkpoint has; refused")
        if name == "DUP":
            self._stack.extend(taken)
            self._stack.extend(self._again(size) for size in taken)
        elif name in {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}:
            self._stack.extend(taken[:1])
        else:
            size = _Size(data=_data(argument) if name not in {"GLOBAL", "INST"} else 0)
            if name in _NESTING:
                size = _Size(1 + sum(part.nodes for part in taken), sum(part.data for part in taken))
            elif name in _GETS:
                size = self._again(self._memo.get(argument, size))
            if size.nodes > _MOST_NESTED:
                raise PystateError(f"nests more than {_MOST_NESTED:,} tuples in one, which no checkpoint does; refused")
            self._stack.extend([size] * len(after))

    def _again(self, size: _Size) -> _Size:
        self._left -= size.data
        if self._left < 0:
            raise PystateError("uses the same data again and again, which no pickler does; refused")
        return size


def _data(argument: Any) -> int:
    if isinstance(argument, str | bytes | bytearray):
        return len(argument)
    return argument.bit_length() // 8 if isinstance(argument, int) else 0


def _refuse_unless_admitted(module: str, name: str) -> None:
    if (module, name) not in ADMITTED:
        _refuse(f"{module}.{name}")


def _refuse(what: str) -> NoReturn:
    raise PystateError(
        f"asks for {what}; a checkpoint needs arrays and mappings alone, so it is refused and nothing in it "
        "was run. If you trust its source, load it there and pickle {module: {name: numpy array}}"
    )


class _Unpickler(pickle.Unpickler):
    """Builds with the admitted constructors alone, whatever the walk before it let through."""

    def find_class(self, module: str, name: str, /) -> Any:
        _refuse_unless_admitted(module, name)
        return ADMITTED[module, name]

    def persistent_load(self, pid: object, /) -> NoReturn:
        _refuse("an object outside of the file (a persistent id)")


def _unpickle(file: BinaryIO) -> object:
    try:
        return _Unpickler(file).load()
    except PystateError:
        raise
    except Exception as error:  # what a malformed pickle raises depends on where it is malformed
        raise PystateError(f"is a malformed pickle ({type(error).__name__}: {error}); download it again") from error


# What Perceiver AR's checkpoints hold besides; it is of no use here.
_OF_TRAINING = ("global_step", "opt_state")


def _split(root: object) -> tuple[object, object]:
    """Maps the unpickled root to (parameters, state), where a file of parameters alone has no state."""
    if not isinstance(root, Mapping):
        raise PystateError(f"holds a {_kind(root)}; a Haiku checkpoint is {{module: {{name: array}}}}")
    if "params" not in root:
        return root, {}
    extra = [key for key in root if key not in ("params", "state", *_OF_TRAINING)]
    if extra:
        raise PystateError(
            f"holds {shown(extra[0])} beside 'params'; pickle {{'params': ..., 'state': ...}} of it alone"
        )
    return root["params"], root.get("state", {})


def _flatten(part: str, tree: object) -> dict[str, np.ndarray]:
    """Maps {module: {name: array}} to {module/name: array}; Haiku's trees have these two levels and no others."""
    if not isinstance(tree, Mapping):
        raise PystateError(f"has a {_kind(tree)} for its {part}; they must be {{module: {{name: array}}}}")
    flat: dict[str, np.ndarray] = {}
    for module, entries in tree.items():
        if not isinstance(entries, Mapping):
            raise PystateError(f"has a {_kind(entries)} at {shown(module)} of its {part}; it must be {{name: array}}")
        for name, leaf in entries.items():
            if not (isinstance(module, str) and isinstance(name, str)):
                raise PystateError(f"has the keys {shown(module)}, {shown(name)} in its {part}; both must be strings")
            if len(module) + len(name) > _LONGEST_PATH or len(flat) == _MOST_ARRAYS:
                raise PystateError(
                    f"has more than {_MOST_ARRAYS:,} arrays in its {part}, or names of more than {_LONGEST_PATH:,} "
                    "characters, which no checkpoint has; refused"
                )
            key = f"{module}/{name}"
            if key in flat:
                raise PystateError(f"has {key!r} twice in its {part}; once is the rule")
            if not isinstance(leaf, PickledArray):
                raise PystateError(f"has a {_kind(leaf)} at {key!r} of its {part}; every leaf must be an array")
            flat[key] = leaf.value
    return flat


def _kind(value: object) -> str:
    if isinstance(value, PickledArray):
        return "single array"
    return "mapping" if isinstance(value, Mapping) else type(value).__name__
