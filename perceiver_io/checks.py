"""Checks of what the library is given: one sentence with the value, the rule and the way out, where it comes in.

Types, dtypes and axes are always looked at, values only where they are at hand: on a CPU, outside of transforms. While
PyTorch compiles, exports or traces, nothing is checked.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

# Coordinates beyond this are mistakes: the grid spans -1…1, and sines of large angles are noise in float32.
_FARTHEST = 16.0


def is_checking() -> bool:
    """Whether arguments are checked: not while PyTorch compiles, exports or traces."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's values can be looked at for nothing: they lie on the CPU, hidden by no transform or mode."""
    return (
        is_checking()  # before what no compiler can follow
        and type(tensor) in (Tensor, nn.Parameter)
        and not torch._C._len_torch_dispatch_stack()
        and is_at_hand(tensor.device)
        and tensor.numel() > 0
        and not torch._C._are_functorch_transforms_active()
    )


def is_at_hand(device: torch.device) -> bool:
    """Whether looking at a value there waits for nothing."""
    return device.type == "cpu"


def check_floats(name: str, value: Any, axes: Sequence[str | int], dtype: torch.dtype | None = None) -> None:
    """Checks a tensor of finite numbers.

    Args:
        name: of the argument, for the message.
        axes: a number for each axis of fixed size, a word for each other. Only "batch" may be 0.
        dtype: that it must have, unless autocasting chooses; None for any floating one.

    Raises:
        ValueError: if it is not a tensor, or of another dtype or shape, or holds NaN or infinite values.
    """
    if not is_checking():
        return
    layout = f"[{', '.join(map(str, axes))}]"
    _check_type(name, value, layout)
    _check_axes(name, value, axes, layout)
    if not value.is_floating_point():
        raise ValueError(
            f"{name} of {value.dtype} must be floating-point, {layout}; convert with {name}.float() and scale it to "
            "what the model takes (pictures of 0…255 by 1/255, say)"
        )
    if dtype is not None and value.dtype != dtype and not _autocasts(value):
        raise ValueError(
            f"{name} of {value.dtype} must be {dtype}, as the model's weights are; convert with {name}.to({dtype}), or "
            "the model with model.to(...)"
        )
    # In training, the loss tells: the trainer names the step and the examples.
    if has_values(value) and not torch.is_grad_enabled() and not value.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values; replace these, by 0 say, and mask those inputs")


def check_integers(name: str, value: Any, axes: Sequence[str | int], size: int) -> None:
    """Checks a tensor of integers in 0…size - 1; `axes` as in `check_floats`.

    Raises:
        ValueError: if it is not a tensor, or of another dtype or shape, or holds other values.
    """
    if not is_checking():
        return
    layout = f"[{', '.join(map(str, axes))}]"
    _check_type(name, value, layout)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} of {value.dtype} must be integers {layout}; convert with {name}.long()")
    _check_axes(name, value, axes, layout)
    if has_values(value):
        value = value.long()  # PyTorch has no minimum of unsigned integers of two and more bytes
        least, most = value.min().item(), value.max().item()
        if least < 0 or most >= size:
            raise ValueError(f"{name} must lie in 0…{size - 1}; got {least}…{most}")


def as_mask(name: str, value: Any, shape: Sequence[int | str], true: str = "valid") -> Tensor:
    """Maps a mask, bool or of the integers 0 and 1, to a bool one.

    Args:
        name: of the argument, for the message.
        shape: a word for an axis of any size.
        true: the meaning of True, for the message.

    Raises:
        ValueError: if it is of another kind or shape. Floats are refused: in other libraries 0 means valid, and -inf
            not.
    """
    if not is_checking():
        return value.bool()
    layout = f"[{', '.join(map(str, shape))}]"
    _check_type(name, value, layout)
    if value.is_floating_point() or value.is_complex():
        raise ValueError(
            f"{name} of {value.dtype} must be bool (or integers 0 and 1), True where {true}; "
            + (f"of an additive mask, give {name} == 0" if true == "valid" else f"give {name} > 0 or {name} == 0")
        )
    if len(value.shape) != len(shape) or any(
        isinstance(axis, int) and size != axis for size, axis in zip(value.shape, shape, strict=True)
    ):
        raise ValueError(f"{name} {tuple(value.shape)} must be of shape {layout}, a value for each row")
    if value.dtype != torch.bool and has_values(value):
        integers = value.long()
        if not ((integers == 0) | (integers == 1)).all():
            raise ValueError(
                f"{name} holds {integers.min().item()}…{integers.max().item()}; integers in a mask must be 0 (not "
                f"{true}) or 1"
            )
    return value.bool()


def as_number(name: str, value: Any, else_: str) -> int:
    """Maps a number of things, an int or another library's integer, to an int.

    Args:
        name: of the argument, for the message.
        else_: what may stand in its place, for the message.

    Raises:
        ValueError: if it is something else, or less than 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} ({value!r}) must be an integer of at least 1; {else_}")
    return number


def check_points(points: Any) -> None:
    """Checks the kind of points: None, a slice, integers [points] or [batch, points], or coordinates of three axes.

    Raises:
        ValueError: for anything else, or coordinates that are not finite or far from -1…1.
    """
    if points is None or isinstance(points, slice) or not is_checking():
        return
    kinds = (
        "None, a slice, integers [points] or [batch, points] of torch.int64, or coordinates [batch, points, dimensions]"
    )
    if not isinstance(points, Tensor):
        raise ValueError(f"points ({type(points).__name__}) must be {kinds}; torch.tensor(...) makes one of a list")
    if points.is_floating_point():
        if points.ndim != 3:
            raise ValueError(f"points {tuple(points.shape)} of {points.dtype} must be {kinds}")
        if has_values(points) and not (points.abs() <= _FARTHEST).all():  # nor NaN
            raise ValueError(
                f"points hold coordinates that are NaN or beyond ±{_FARTHEST:g}; the grid spans -1…1, and flat indices "
                "are integers"
            )
    elif points.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"points of {points.dtype} must be {kinds}; of a mask, give mask.nonzero()[:, 0], else points.long()"
        )
    elif points.ndim not in (1, 2):
        raise ValueError(f"points {tuple(points.shape)} must be {kinds}")


def check_rows(name: str, rows: Any, channels: int, what: str, dtype: torch.dtype | None = None) -> None:
    """Checks rows [batch, rows, channels] that one stage gives another.

    Args:
        what: whose width and precision they must have, for the message.
        dtype: that they must have, unless autocasting chooses; None for any floating one.

    Raises:
        ValueError: if they are not floating-point, or of other axes, width or precision.
    """
    if not is_checking():
        return
    _check_type(name, rows, f"[batch, rows, {channels}]")
    if rows.ndim != 3 or rows.shape[-1] != channels or not rows.is_floating_point():
        raise ValueError(
            f"{name} {tuple(rows.shape)} of {rows.dtype} must be floating-point, [batch, rows, {channels}], the "
            f"channels that {what} was built for; build it with {rows.shape[-1] if rows.ndim else 0} or change what "
            "comes before it"
        )
    if dtype is not None and rows.dtype != dtype and not _autocasts(rows):
        raise ValueError(
            f"{name} of {rows.dtype} must be {dtype}, as the weights of {what} are; convert the input with "
            f".to({dtype}), or the model with model.to(...)"
        )


def check_some(name: str, number: int) -> None:
    """Checks that there is something to attend to.

    Raises:
        ValueError: if there is not.
    """
    if is_checking() and number == 0:
        raise ValueError(f"there are 0 {name}; there must be one at least, so that there is something to attend to")


def check_batch(name: str, batch: int, others: str, expected: int, *, one_for_all: bool = False) -> None:
    """Checks that two things are of as many examples; with `one_for_all`, one may stand for all.

    Raises:
        ValueError: if they are not.
    """
    if is_checking() and batch != expected and not (one_for_all and 1 in (batch, expected)):
        raise ValueError(
            f"{name} of {batch} examples must fit {others} of {expected}: give as many"
            + (", or one for all" if one_for_all else "")
        )


def _check_type(name: str, value: Any, layout: str) -> None:
    if isinstance(value, fx.Proxy):
        raise ValueError(
            f"{name} (a {type(value).__name__} of torch.fx) must be a tensor {layout}: which operations a model runs "
            "depends on its inputs' shapes, which symbolic tracing does not know; use torch.export.export"
        )
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name} ({type(value).__name__}) must be a tensor {layout}; torch.from_numpy(...) or torch.tensor(...) "
            "makes one"
        )


def _check_axes(name: str, value: Tensor, axes: Sequence[str | int], layout: str) -> None:
    shape = tuple(value.shape)
    fits = len(shape) == len(axes) and all(
        size == axis if isinstance(axis, int) else size > 0 or axis == "batch"
        for size, axis in zip(shape, axes, strict=True)
    )
    if fits:
        return
    way_out = "reshape, crop or pad it"
    if len(shape) == len(axes) - 1:
        way_out = f"a batch of one is {name}[None]"
    elif len(shape) == len(axes) and "height" in axes:
        place = list(axes).index("height") - 1
        if shape[-1] == axes[place] and shape[place] != axes[place]:
            way_out = f"channels come before height and width: {name}.movedim(-1, {place - len(axes)})"
    raise ValueError(f"{name} {shape} must be {layout}; {way_out}")


def _autocasts(value: Tensor) -> bool:
    return not value.is_meta and torch.is_autocast_enabled(value.device.type)


def check_task(processor: str, model: Any, config: type) -> None:
    """Checks that a model is of the task that a processor prepares and reads for.

    Raises:
        ValueError: if it is not, or has no configuration.
    """
    if not isinstance(getattr(model, "config", None), config):
        raise ValueError(
            f"{processor} does not fit a {type(model).__name__}; give it a model whose config is a {config.__name__}"
        )
