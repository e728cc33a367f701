"""Things that a pickled checkpoint may construct: arrays of numbers and mappings, by every name pickles give them.

NumPy, JAX and Haiku all pickle an object as "call this function, then hand its result this state". `ADMITTED`
answers those names with constructors of this module, which hold data and check it. So nothing that a file
names is imported, an array of Python objects cannot be expressed, and neither JAX nor Haiku nor ml_dtypes
(for bfloat16) has to be installed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np


class PystateError(ValueError):
    """A checkpoint file that cannot be read, or that asks for more than a checkpoint needs."""


def shown(value: object) -> str:
    """Maps anything that a pickle made to a short text. Its `repr` may be longer than any memory."""
    if isinstance(value, tuple):
        return f"({', '.join(_shown_alone(part) for part in value[:5])}{', …' if len(value) > 5 else ''})"
    return _shown_alone(value)


def _shown_alone(value: object) -> str:
    if isinstance(value, str | bytes | bytearray):
        return f"{value[:100]!r}{'…' if len(value) > 100 else ''}"
    if isinstance(value, int) and value.bit_length() > 300:
        return f"an integer of {value.bit_length()} bits"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


# As many as NumPy allows.
_MOST_AXES = 64
_LONGEST_AXIS = 2**40


class PickledArray:
    """One array of numbers, whichever of NumPy's and JAX's constructors the pickle calls for it."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(
        self,
        data: object,
        dtype: object,
        shape: Any,
        order: Any,
        axes: Any = None,
    ) -> PickledArray:
        """Maps bytes to the array, C-contiguous and of the machine's byte order.

        With order "K" the shape is that of the memory, and `axes` permutes it into the array's.
        """
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise PystateError("holds an array that is not made of the bytes of numbers; nothing else is read")
        is_shape = isinstance(shape, tuple) and len(shape) <= _MOST_AXES
        if not is_shape or not all(type(size) is int and 0 <= size <= _LONGEST_AXIS for size in shape):
            raise PystateError(
                f"holds an array of {len(data)} bytes whose shape {shown(shape)} is not a tuple of sizes"
            )
        expected = math.prod(shape) * dtype.numpy.itemsize
        if len(data) != expected:
            raise PystateError(f"holds an array of {len(data)} bytes; shape {shape} and {dtype.numpy} need {expected}")
        value = np.frombuffer(data, dtype.numpy)
        value = value.reshape(shape, order=order) if order != "K" else value.reshape(shape).transpose(axes)
        value = np.asarray(value, dtype=dtype.numpy.newbyteorder("="), order="C")
        if dtype.is_bfloat16:  # bfloat16 is the upper half of a float32
            value = np.asarray(value.astype(np.uint32) << np.uint32(16)).view(np.float32)
        self._value = value
        return self

    @property
    def value(self) -> np.ndarray:
        if self._value is None:
            raise PystateError("holds an array without a value; download it again")
        return self._value


class _Dtype:
    """Maps a pickled `numpy.dtype` to the dtype of plain numbers it means; NumPy has no bfloat16: it is marked."""

    __slots__ = ("is_bfloat16", "numpy")

    def __init__(self, code: object, *_align_and_copy: object) -> None:
        self.is_bfloat16 = code is _BFLOAT16
        if self.is_bfloat16:
            self.numpy: np.dtype[Any] = np.dtype(np.uint16)
        elif isinstance(code, str) and re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)", code):
            self.numpy = np.dtype(code)
        else:
            raise PystateError(f"holds an array of dtype {shown(code)}; only numbers of a fixed size are read")

    def __setstate__(self, state: Any) -> None:
        order, *structure = state[1:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in structure):
            raise PystateError("holds an array of structures; only numbers of a fixed size are read")
        self.numpy = self.numpy.newbyteorder(order)


class _Mapping(Mapping[Any, Any]):
    """Haiku's immutable mappings of all versions and `OrderedDict`: a view of the dictionary that they hold.

    A copy, asked for often enough, would fill any memory.
    """

    __slots__ = ("_entries",)

    def __new__(cls, entries: object = None) -> _Mapping:
        mapping = object.__new__(cls)
        mapping._entries = {} if entries is None else _entries(entries)
        return mapping

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._entries[key] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __setstate__(self, state: Any) -> None:
        attributes = state[1] if isinstance(state, tuple) and len(state) == 2 else state
        for name in ("_mapping", "_storage", "_dict"):
            if isinstance(attributes, dict) and name in attributes:
                self._entries = _entries(attributes[name])
                return
        _entries(None)


def _entries(mapping: object) -> dict[Any, Any]:
    if isinstance(mapping, _Mapping):
        return mapping._entries
    if isinstance(mapping, dict):
        return mapping
    raise PystateError("holds a mapping that is pickled as no version of Haiku does; pickle plain dictionaries")


class _Dropped:
    """Stands for an instance of a namedtuple, such as the state of an optimiser; keeps nothing of it."""

    __slots__ = ()

    def __new__(cls, *_fields: object) -> _Dropped:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> NoReturn:
        raise PystateError("hands a namedtuple a state, which it has none of")


class _Constructor:
    """A function that a pickle may call. On a plain function it could set attributes as well."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., object]) -> None:
        self._build = build

    def __call__(self, *args: object) -> object:
        return self._build(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise PystateError("hands a constructor a state; only what it constructs may have one")


def _reconstruct(_kind: object, _shape: object, _code: object) -> PickledArray:
    return PickledArray()


def _scalar(dtype: object, data: object) -> PickledArray:
    return PickledArray().fill(data, dtype, (), "C")


def _from_buffer(data: object, dtype: object, shape: Any, order: Any, axes: Any = None) -> PickledArray:
    return PickledArray().fill(data, dtype, shape, order, axes)


def _from_jax(_construct: object, _args: object, state: Any, _tracing: object) -> PickledArray:
    """JAX hands over the three parts of the pickled NumPy array, and facts that matter when tracing."""
    array = PickledArray()
    array.__setstate__(state)
    return array


def _encode(text: object, encoding: object) -> bytes:
    """Bytes as protocol 2, which has none, spells them."""
    if encoding != "latin1" or not isinstance(text, str):
        raise PystateError(f"encodes bytes as {shown(encoding)}; picklers use latin1 alone")
    return text.encode("latin1")


_NDARRAY = _Constructor(PickledArray)
_BFLOAT16 = _Constructor(PickledArray)

# Answer → where pickles ask for it; the modules moved between versions of NumPy, JAX and Haiku.
_ANSWERS: tuple[tuple[object, tuple[str, ...]], ...] = (
    (_NDARRAY, ("numpy.ndarray",)),
    (_Constructor(_Dtype), ("numpy.dtype",)),
    (
        _Constructor(_reconstruct),
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    ),
    (_Constructor(_scalar), ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")),
    (_Constructor(_from_buffer), ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")),
    (
        _Constructor(_from_jax),
        (
            "jax._src.array._reconstruct_array",
            "jax.experimental.array._reconstruct_array",
            "jax._src.device_array.reconstruct_device_array",
            "jax.interpreters.xla.reconstruct_device_array",
        ),
    ),
    (
        _BFLOAT16,
        (
            "ml_dtypes.bfloat16",
            "jax.numpy.bfloat16",
            "jax._src.numpy.lax_numpy.bfloat16",
            "jaxlib.xla_extension.bfloat16",
            "jaxlib.xla_client.bfloat16",
            "tensorflow.bfloat16",
            "builtins.bfloat16",
        ),
    ),
    (
        _Mapping,
        (
            "haiku._src.data_structures.FlatMapping",
            "haiku._src.data_structures.FlatMap",
            "haiku._src.data_structures.frozendict",
            "frozendict.frozendict",
            "frozendict.core.frozendict",
            "collections.OrderedDict",
            "builtins.dict",
            "__builtin__.dict",
        ),
    ),
    (_Constructor(lambda *_: _Mapping()), ("collections.defaultdict",)),
    # dill makes the class of a namedtuple by its name, its fields and its module.
    (_Constructor(lambda _name, _fields, _module: _Dropped), ("dill._dill._create_namedtuple",)),
    # Protocol 2 spells bytes as encoded text, and empty ones as bytes().
    (_Constructor(_encode), ("_codecs.encode",)),
    (_Constructor(lambda: b""), ("builtins.bytes", "__builtin__.bytes")),
)

ADMITTED: dict[tuple[str, str], object] = {
    (module, name): answer
    for answer, places in _ANSWERS
    for module, _, name in (place.rpartition(".") for place in places)
}
