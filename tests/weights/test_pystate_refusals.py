"""The reader of Haiku's pickles refuses everything else, says what it was, and runs none of it."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perceiver_io import import_model
from perceiver_io.weights.pystate import HaikuCheckpoint, PystateError, _Unpickler, read_pystate

PROTOCOLS = (2, 3, 4, 5)
TREE = {"encoder/~/linear": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}}


def _read(tmp_path: Path, content: bytes) -> HaikuCheckpoint:
    path = tmp_path / "checkpoint.pystate"
    path.write_bytes(content)
    return read_pystate(path)


class Call:
    """Pickles as a call of `function`, which unpickling runs."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _touch(marker: Path) -> str:
    return f"touch {marker}"


def _object_array(leaf: object) -> np.ndarray:
    array = np.empty(1, object)
    array[0] = leaf
    return array


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


# What a file does → how to make it (with the marker that it leaves if it runs), and what the error says.
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    **{
        f"os.system in protocol {protocol}": (
            lambda marker, protocol=protocol: pickle.dumps(Call(os.system, _touch(marker)), protocol),
            r"asks for (posix|nt)\.system",
        )
        for protocol in range(6)
    },
    "a call beside good weights": (
        lambda marker: pickle.dumps({**TREE, "x": {"w": Call(os.system, _touch(marker))}}),
        r"asks for (posix|nt)\.system",
    ),
    "eval": (
        lambda marker: pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w')")),
        r"asks for builtins\.eval",
    ),
    "getattr": (lambda _: pickle.dumps(Call(getattr, "", "join")), r"asks for builtins\.getattr"),
    "a call in an object array": (
        lambda marker: pickle.dumps({"m": {"w": _object_array(Call(os.system, _touch(marker)))}}),
        r"asks for (posix|nt)\.system",
    ),
    "an object array of plain things": (
        lambda _: pickle.dumps({"m": {"w": _object_array("text")}}),
        r"dtype 'O8'; only numbers",
    ),
    "an object dtype that takes bytes": (
        lambda _: pickle.dumps({"m": {"w": np.zeros(1, "f8")}}, 3).replace(
            b"\x02\x00\x00\x00f8", b"\x02\x00\x00\x00O8"
        ),
        r"dtype 'O8'; only numbers",
    ),
    "the old opcode INST": (
        lambda marker: f"(S'{_touch(marker)}'\nios\nsystem\n.".encode(),
        r"asks for os\.system",
    ),
    "importing a module": (lambda _: _global("leaves_marker", "x") + b".", r"asks for leaves_marker\.x"),
    "another name of an admitted module": (
        lambda _: b"\x80\x04" + _global("numpy", "load") + b".",
        r"numpy\.load",
    ),
    "an attribute of an admitted name": (
        lambda _: b"\x80\x04" + _text("numpy") + _text("dtype.__reduce__") + b"\x93.",
        r"asks for numpy\.dtype\.__reduce__",
    ),
    "memoised names": (
        lambda marker: (
            b"\x80\x04%s\x94%s\x9400h\x01h\x00\x93%s\x85R." % (_text("system"), _text("posix"), _text(_touch(marker)))
        ),
        r"asks for posix\.system",
    ),
    "a name below another text": (
        lambda marker: b"".join(
            (
                b"\x80\x04",
                _text("posix"),
                _text("system"),
                _text("x"),
                b"0\x93",
                _text(_touch(marker)),
                b"\x85R.",
            )
        ),
        r"hides what it asks for at byte 21",
    ),
    "a memoised name replaced": (
        lambda _: b"\x80\x04%sq\x000%s\x85q\x00h\x00%s\x93." % (_text("numpy"), _text("posix"), _text("dtype")),
        r"hides what it asks for",
    ),
    "a copyreg extension": (lambda _: b"\x80\x02\x82\x01.", r"asks for copyreg extension 1"),
    "a persistent id": (
        lambda _: b"\x80\x02K\x01Q.",
        r"asks for an object outside of the file \(BINPERSID\)",
    ),
    "an out-of-band buffer": (
        lambda _: pickle.dumps(TREE, 5, buffer_callback=lambda _: None),
        r"asks for an object outside of the file \(NEXT_BUFFER\)",
    ),
    "a state for a constructor": (
        lambda _: b"\x80\x02" + _global("numpy", "dtype") + b"}(X\x01\x00\x00\x00aK\x01ub.",
        r"hands a constructor a state",
    ),
    "a state for a class": (
        lambda _: b"\x80\x02" + _global("haiku._src.data_structures", "FlatMap") + b"}(X\x01\x00\x00\x00aK\x01ub.",
        r"malformed pickle \(TypeError",
    ),
    "a mapping with attributes": (
        lambda _: (
            b"\x80\x02" + _global("haiku._src.data_structures", "FlatMap") + b")\x81}(X\x05\x00\x00\x00itemsK\x01ub."
        ),
        r"pickled as no version of Haiku does",
    ),
    "a huge memo": (lambda _: b"\x80\x02}r\xff\xff\xff\x7f.", r"memoises object 2147483647 in step 2"),
    "a huge frame": (lambda _: b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"}.", r"is truncated"),
    "a huge text": (lambda _: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"a.", r"is truncated"),
    "a huge array": (
        lambda _: pickle.dumps({"m": {"w": np.zeros(3, "i1")}}, 3).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
        r"array of 3 bytes; shape \(2147483647,\) and int8 need 2147483647",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_and_nothing_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = HOSTILE[name]
    marker = tmp_path / "marker"
    (tmp_path / "leaves_marker.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PystateError, match=message):
        _read(tmp_path, make(marker))
    assert not marker.exists()
    assert "leaves_marker" not in sys.modules


def test_the_marker_would_have_been_left(tmp_path: Path) -> None:
    """The hostile files above are live: pickle itself runs them."""
    marker = tmp_path / "marker"
    pickle.loads(HOSTILE["os.system in protocol 4"][0](marker))
    assert marker.exists()


def test_names_are_refused_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad name at the very end of a file stops the reading before its first array."""
    monkeypatch.setattr(_Unpickler, "load", lambda _: pytest.fail("the file was unpickled"))
    with pytest.raises(PystateError, match=r"asks for builtins\.eval"):
        _read(tmp_path, pickle.dumps({**TREE, "last": eval}))


def test_the_unpickler_refuses_by_itself() -> None:
    """Should the walk and the unpickler ever disagree on a name, the unpickler has the last word."""
    with pytest.raises(PystateError, match=r"asks for (posix|nt)\.system"):
        _Unpickler(io.BytesIO(pickle.dumps(os.system))).load()
    with pytest.raises(PystateError, match=r"asks for an object outside of the file"):
        _Unpickler(io.BytesIO(b"\x80\x02K\x01Q.")).load()


def _zip() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"")
        return file.getvalue()


def _safetensors() -> bytes:
    header = b'{"__metadata__":{}}     '
    return struct.pack("<Q", len(header)) + header


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", r"checkpoint\.pystate is empty; download it again"),
    "gzip": (lambda: gzip.compress(pickle.dumps(TREE)), r"gzip-compressed; gunzip it first"),
    "torch zip": (_zip, r"is a zip archive, as PyTorch's \.pth"),
    "old torch": (lambda: pickle.dumps(0x1950A86A20F9469CFC6C, 2), r"is a PyTorch \.pth"),
    "safetensors": (_safetensors, r"is a safetensors file"),
    "page": (lambda: b"\n<!DOCTYPE html><html>Not found</html>", r"is an HTML or XML page"),
    "bucket error": (
        lambda: b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
        r"HTML or XML page",
    ),
    "text": (lambda: b"Dear reader,\n", r"is not a pickle \(.*\); give a \.pystate or \.pickle file"),
    "random": (lambda: bytes(range(255, 0, -1)), r"is not a pickle"),
    "list": (lambda: pickle.dumps([TREE]), r"holds a list; a Haiku checkpoint is"),
    "array": (lambda: pickle.dumps(np.zeros(3)), r"holds a single array; a Haiku checkpoint is"),
    "one level": (lambda: pickle.dumps({"w": np.zeros(3)}), r"single array at 'w' of its params; it must be"),
    "three levels": (
        lambda: pickle.dumps({"a": {"b": {"c": np.zeros(3)}}}),
        r"mapping at 'a/b' of its params",
    ),
    "a number": (
        lambda: pickle.dumps({"a": {"b": 3}}),
        r"int at 'a/b' of its params; every leaf must be an array",
    ),
    "a dtype": (lambda: pickle.dumps({"a": {"b": np.dtype("f4")}}), r"_Dtype at 'a/b'"),
    "list of params": (lambda: pickle.dumps({"params": [], "state": {}}), r"has a list for its params"),
    "no state": (lambda: pickle.dumps({"params": TREE, "state": None}), r"has a NoneType for its state"),
    "optimiser": (lambda: pickle.dumps({"params": TREE, "opt": {}}), r"holds 'opt' beside 'params'"),
    "number keys": (
        lambda: pickle.dumps({0: {"w": np.zeros(3)}}),
        r"the keys 0, 'w' in its params; both must be",
    ),
    "one key twice": (
        lambda: pickle.dumps({"a/b": {"c": np.zeros(3)}, "a": {"b/c": np.zeros(3)}}),
        r"has 'a/b/c' twice in its params",
    ),
    "structures": (lambda: pickle.dumps({"a": {"b": np.zeros(3, "f4,i4")}}), r"dtype 'V8'; only numbers"),
    "texts": (lambda: pickle.dumps({"a": {"b": np.array(["x"])}}), r"dtype 'U1'; only numbers"),
    "dates": (lambda: pickle.dumps({"a": {"b": np.zeros(1, "M8[s]")}}), r"dtype 'M8'; only numbers"),
    "no value": (
        lambda: (
            b"\x80\x03}X\x01\x00\x00\x00a}X\x01\x00\x00\x00b%s%sK\x00\x85C\x01b\x87Rss."
            % (_global("numpy.core.multiarray", "_reconstruct"), _global("numpy", "ndarray"))
        ),
        r"holds an array without a value",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_says_what_it_is(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    with pytest.raises(PystateError, match=message):
        _read(tmp_path, make())


def test_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pystate does not exist; .*curl -LO https://storage"):
        read_pystate(tmp_path / "nowhere.pystate")
    with pytest.raises(PystateError, match=r"is a folder; give the checkpoint file inside it"):
        read_pystate(tmp_path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_an_error(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(TREE, protocol)
    for length in range(2, len(content)):
        with pytest.raises(PystateError, match="is truncated"):
            _read(tmp_path, content[:length])


@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_raises_anything_else(data: st.DataObject, protocol: int, tmp_path: Path) -> None:
    content = bytearray(pickle.dumps({"params": TREE, "state": TREE}, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        checkpoint = _read(tmp_path, bytes(content))
    except PystateError:
        return
    assert all(isinstance(leaf, np.ndarray) for leaf in checkpoint.params.values())


def _doubled(depth: int) -> bytes:
    """Tuples of a tuple and itself again: 2**depth in all."""
    return b"K\x01\x85" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(depth))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}" + _doubled(60) + b"K\x01s.",  # as a key, it would be hashed
        b"\x80\x02}" + b"K\x01" + b"\x85" * 100_000 + b"K\x01s.",
        b"\x80\x02}X\x01\x00\x00\x00a}X\x01\x00\x00\x00b" + _doubled(60) + b"ss.",
        b"\x80\x02}(" + b"K\x01" * 20_000 + b"tK\x01s.",
    ],
)
def test_tuples_that_would_take_for_ever_are_refused(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pystate"
    path.write_bytes(program)
    with pytest.raises(PystateError, match="nests more than 10,000 tuples in one"):
        read_pystate(path)


FROM_BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
F4 = b"cnumpy\ndtype\n\x8c\x02f4\x85R"
PROTOCOL_4 = b"\x80\x04"


def _spelt(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _array_of(shape: bytes) -> bytes:
    return PROTOCOL_4 + FROM_BUFFER + b"(C\x04abcd" + F4 + shape + _spelt("C") + b"tR."


def _lists(depth: int) -> bytes:
    """Lists of ten times a list of ten times a list..., the last in the memo's place `depth`; 10**depth in its repr."""
    layers = (b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) + b"0" for i in range(depth))
    return b"]q\x000" + b"".join(layers)


def _small_array() -> bytes:
    return FROM_BUFFER + b"(C\x04abcd" + F4 + b"K\x01\x85" + _spelt("C") + b"tR"


def _small_arrays(count: int) -> bytes:
    first = _spelt("0") + _small_array() + b"q\x00"
    return first + b"".join(_spelt(f"{i}") + b"h\x00" for i in range(1, count))


_LARGE = b"B" + (2**20).to_bytes(4, "little") + bytes(2**20) + b"q\x000"
_FORTRAN = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    b"(K\x01M\x00\x04M\x00\x01\x86" + F4 + b"\x88h\x00tb"
)
_HUGE = b"\x8b" + (10**5).to_bytes(4, "little") + b"\x7f" * 10**5
_MANY = b"".join(_spelt(f"{i}") + b"K\x00" for i in range(2000))
_ONE_MODULE = b"".join(
    _spelt(f"m{i}") + (b"h\x01" if i else b"}(" + _small_arrays(1000) + b"uq\x01") for i in range(100)
)
_PARTS = b"(" + b"K\x01" * 101 + b"t"
BOMBS = {
    "a shape of a text": (_array_of(b"C\x01a\x8a\x05" + (3 * 10**9).to_bytes(5, "little") + b"\x86"), "whose shape"),
    "a shape of a tuple": (
        _array_of(b"K\x00\x85\x8a\x04" + (3 * 10**8).to_bytes(4, "little") + b"\x86"),
        "whose shape",
    ),
    "a shape of many": (_array_of(b"(" + b"K\x01" * 65 + b"t"), "whose shape"),
    "a shape of huge integers": (
        _array_of(b"(" + _HUGE + b"q\x00h\x00h\x00t"),
        "whose shape .an integer of 799999 bits",
    ),
    "a shape of more": (_array_of(b"(" + _HUGE + b"q\x00" + b"h\x00" * 50 + b"t"), "the same data again and again"),
    "a dtype of lists in lists": (
        PROTOCOL_4 + _lists(12) + b"cnumpy\ndtype\nh\x0c\x85R.",
        "dtype a list; only numbers",
    ),
    "numbers that PyTorch lacks": (
        PROTOCOL_4
        + FROM_BUFFER
        + b"(C\x10"
        + bytes(16)
        + b"cnumpy\ndtype\n\x8c\x03f16\x85RK\x01\x85"
        + _spelt("C")
        + b"tR.",
        "dtype 'f16'; only numbers",
    ),
    "a leaf of lists in lists": (
        PROTOCOL_4 + _lists(12) + b"}" + _spelt("a") + b"}" + _spelt("b") + b"h\x0css.",
        "has a list at 'a/b'",
    ),
    "an encoding of lists": (
        PROTOCOL_4 + _lists(12) + b"c_codecs\nencode\n" + _spelt("a") + b"h\x0c\x86R.",
        "bytes as a list",
    ),
    "a name of long texts": (
        PROTOCOL_4 + _spelt("x" * 2**20) + b"q\x000}(" + b"h\x00" * 90 + b"tK\x01s.",
        "the same data again and again",
    ),
    "a key of many parts": (PROTOCOL_4 + b"}" + _PARTS + b"K\x01s.", "key of more than 100 parts"),
    "keys of many parts": (PROTOCOL_4 + b"}(K\x01K\x01" + _PARTS + b"K\x01u.", "key of more than 100 parts"),
    "a set of many parts": (PROTOCOL_4 + b"(" + _PARTS + b"\x91.", "key of more than 100 parts"),
    "the same data in many arrays": (
        PROTOCOL_4 + _LARGE + b"](" + _FORTRAN * 1000 + b"e.",
        "the same data again and again",
    ),
    "a dictionary in many mappings": (
        PROTOCOL_4 + b"}(" + _MANY + b"uq\x000](" + b"ccollections\nOrderedDict\nh\x00\x85R" * 1000 + b"e.",
        "holds a list",
    ),
    "one module under many names": (PROTOCOL_4 + b"}(" + _ONE_MODULE + b"u.", "more than 20,000 arrays"),
    "a long name": (
        PROTOCOL_4 + b"}" + _spelt("x" * 2000) + b"}" + _spelt("b") + _small_array() + b"ss.",
        "names of more than",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_file_asks_for_is_bounded_by_what_it_holds(name: str, tmp_path: Path) -> None:
    program, message = BOMBS[name]
    path = tmp_path / "bomb.pystate"
    path.write_bytes(program)
    tracemalloc.start()
    try:
        with pytest.raises(PystateError, match=message) as refusal:
            read_pystate(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 30 * 2**20
    assert len(str(refusal.value)) < 1000


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(PystateError, match="pipe is no file on a disk"):
        read_pystate(path)
    with pytest.raises(ValueError, match="pipe is neither a file on a disk nor a folder"):
        import_model(path)
