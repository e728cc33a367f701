"""The reader of Haiku's pickles is exact on everything that checkpoints hold."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perceiver_io.weights.pystate import HaikuCheckpoint, read_pystate

GOLDEN = Path(os.environ.get("PERCEIVER_GOLDEN_DIR", Path(__file__).parents[1] / "data" / "golden")) / "models"
PROTOCOLS = (2, 3, 4, 5)
TREE = {"encoder/~/linear": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}}


def _read(tmp_path: Path, content: bytes) -> HaikuCheckpoint:
    path = tmp_path / "checkpoint.pystate"
    path.write_bytes(content)
    return read_pystate(path)


def _npz_of(pystate: Path) -> Path:
    """language_plain_dict.pystate, language.pystate → language.npz; video.pystate → video_full.npz."""
    stems = [pystate.stem, pystate.stem.split("_plain_dict")[0], pystate.stem.split("_jax_arrays")[0]]
    candidates = [GOLDEN / f"{stem}{suffix}.npz" for stem in stems for suffix in ("", "_full")]
    return next(candidate for candidate in candidates if candidate.exists())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.pystate")), ids=lambda path: path.stem)
def test_golden_file_holds_what_the_reference_ran_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jax", "jaxlib", "haiku", "ml_dtypes"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises
    checkpoint = read_pystate(path)
    with np.load(_npz_of(path)) as case:
        for part, prefix in ((checkpoint.params, "param:"), (checkpoint.state, "state:")):
            expected = {key.removeprefix(prefix): case[key] for key in case.files if key.startswith(prefix)}
            assert part.keys() == expected.keys()
            for key, array in expected.items():
                np.testing.assert_array_equal(part[key], array, strict=True)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class FlatMapping(dict[str, Any]):
    """Pickles under Haiku's name as dm-haiku does: a call with the plain dictionary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class FlatMap(FlatMapping): ...


class frozendict:  # noqa: N801 (the name that pickles hold)
    """Pickles its slots, as a class without `__reduce__` does."""

    __slots__ = ("_hash", "_storage")

    def __init__(self, mapping: dict[str, Any]) -> None:
        self._storage = mapping
        self._hash = 0


def _reconstruct_array(*_: object) -> None: ...


def reconstruct_device_array(*_: object) -> None: ...


class bfloat16: ...  # noqa: N801


HAIKU = "haiku._src.data_structures"
FOREIGN: tuple[tuple[str, Any], ...] = (
    (HAIKU, FlatMapping),
    (HAIKU, FlatMap),
    (HAIKU, frozendict),
    ("jax._src.array", _reconstruct_array),
    ("jax._src.device_array", reconstruct_device_array),
    ("ml_dtypes", bfloat16),
)


@pytest.fixture(scope="module")
def foreign_modules() -> Iterator[None]:
    """Modules under the names of Haiku, JAX and ml_dtypes, so that pickle finds and writes those names."""
    with pytest.MonkeyPatch.context() as patch:
        for module, thing in FOREIGN:
            parents = module.split(".")
            for depth in range(1, len(parents) + 1):
                patch.setitem(sys.modules, ".".join(parents[:depth]), types.ModuleType(module))
            patch.setattr(thing, "__module__", module)
        for module, thing in FOREIGN:
            setattr(sys.modules[module], thing.__name__, thing)
        yield


class JaxArray:
    """Pickles as jax.Array does: a call with the three parts of the NumPy array's own pickle."""

    constructor: Callable[..., None] = staticmethod(_reconstruct_array)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        function, args, state = self.array.__reduce__()  # type: ignore[misc]
        return type(self).constructor, (function, args, state, {"weak_type": False})


class OldDeviceArray(JaxArray):
    constructor = staticmethod(reconstruct_device_array)


class Bfloat16Array:
    """Pickles as an ml_dtypes bfloat16 array does, from the uint16 bits."""

    class _Dtype:
        def __init__(self, byte_order: str) -> None:
            self.byte_order = byte_order

        def __reduce__(self) -> tuple[Any, ...]:
            return np.dtype, (bfloat16, False, True), (3, self.byte_order, None, None, None, 2, 2, 64)

    def __init__(self, bits: np.ndarray, byte_order: str = "<") -> None:
        self.bits = bits.astype(np.dtype(np.uint16).newbyteorder(byte_order))
        self.byte_order = byte_order

    def __reduce__(self) -> tuple[Any, ...]:
        function, args, (version, shape, _, fortran, data) = self.bits.__reduce__()  # type: ignore[misc]
        return function, args, (version, shape, self._Dtype(self.byte_order), fortran, data)


NUMBERS = st.one_of(
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.boolean_dtypes(),
)
ARRAYS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)).map(
    lambda array: np.asarray(array)
)
LAYOUTS: tuple[Callable[[np.ndarray], Any], ...] = (
    np.ascontiguousarray,
    np.asfortranarray,
    lambda array: np.moveaxis(array, 0, -1) if array.ndim else array,
    lambda array: array[::2] if array.ndim else array,
)
MAPPINGS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    dict,
    OrderedDict,
    lambda mapping: defaultdict(dict, mapping),
    FlatMapping,
    FlatMap,
    frozendict,
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=12)


@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_comes_back_exactly(data: st.DataObject, protocol: int, tmp_path: Path, foreign_modules: None) -> None:
    part = st.dictionaries(KEYS, st.dictionaries(KEYS, ARRAYS, max_size=3), max_size=3)
    trees = {name: data.draw(part) for name in ("params", "state")}
    expected = {
        name: {f"{module}/{key}": leaf for module, leaves in tree.items() for key, leaf in leaves.items()}
        for name, tree in trees.items()
    }
    sizes = [sum(len(leaves) for leaves in tree.values()) for tree in trees.values()]
    assume(sizes == [len(flat) for flat in expected.values()])  # else a key is there twice, which is refused
    mapping = data.draw(st.sampled_from(MAPPINGS))
    layout = data.draw(st.sampled_from(LAYOUTS))
    leaf_kind = data.draw(st.sampled_from((lambda array: array, JaxArray, OldDeviceArray)))

    pickled = {
        name: mapping(
            {
                module: mapping({key: leaf_kind(layout(leaf)) for key, leaf in leaves.items()})
                for module, leaves in tree.items()
            }
        )
        for name, tree in trees.items()
    }
    checkpoint = _read(tmp_path, pickle.dumps(pickled, protocol))
    for name, flat in expected.items():
        read = getattr(checkpoint, name)
        assert read.keys() == flat.keys()
        for key, leaf in flat.items():
            leaf = layout(leaf)
            np.testing.assert_array_equal(read[key], leaf.astype(leaf.dtype.newbyteorder("=")), strict=True)
            assert read[key].flags.c_contiguous and read[key].dtype.isnative


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_bfloat16_becomes_the_same_float32(
    protocol: int, byte_order: str, tmp_path: Path, foreign_modules: None
) -> None:
    values = np.array([[0.0, -0.0, 1.0], [-3.140625, 2.0**-133, np.inf]], np.float32)  # all exact in bfloat16
    leaves = {"w": values, "b": values[0, 2:].reshape(())}
    tree = {
        "m": {name: Bfloat16Array(np.asarray(leaf.view(np.uint32) >> 16), byte_order) for name, leaf in leaves.items()}
    }
    read = _read(tmp_path, pickle.dumps(tree, protocol)).params
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(read[f"m/{name}"], leaf, strict=True)
    np.testing.assert_array_equal(np.signbit(read["m/w"]), np.signbit(values))


def test_numpy_scalars_and_old_module_paths(tmp_path: Path) -> None:
    content = pickle.dumps({"m": {"counter": np.int32(7), "w": np.eye(2, 3)}}, 3)
    old = content.replace(b"numpy._core.", b"numpy.core.")
    for spelling in (content, old):
        read = _read(tmp_path, spelling).params
        np.testing.assert_array_equal(read["m/counter"], np.array(7, np.int32), strict=True)
        np.testing.assert_array_equal(read["m/w"], np.eye(2, 3), strict=True)


def test_parameters_alone_have_no_state(tmp_path: Path) -> None:
    checkpoint = _read(tmp_path, pickle.dumps(TREE))
    assert set(checkpoint.params) == {"encoder/~/linear/w", "encoder/~/linear/b"}
    assert checkpoint.state == {}
