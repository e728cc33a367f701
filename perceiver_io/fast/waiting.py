"""What makes the host wait for a GPU, which stalls it, and which no CUDA graph can record."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
# Values that Python looks at, results whose size depends on values, and tensors made of Python's numbers.
_WAITING = {
    _ATEN._local_scalar_dense,
    _ATEN.is_nonzero,
    _ATEN.nonzero,
    _ATEN.masked_select,
    _ATEN.equal,
    _ATEN._unique2,
    _ATEN.unique_dim,
    _ATEN.unique_consecutive,
    _ATEN.bincount,
    _ATEN.lift_fresh,
}
_INDEXING = {_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._index_put_impl_}
_COPYING = {_ATEN._to_copy, _ATEN.copy_, _ATEN._copy_from}


class WaitingError(RuntimeError):
    """An operation that the host would wait for."""


class NothingWaits(TorchDispatchMode):
    """Refuses operations that wait for the device: as far as they are known, and whatever the device is.

    Copies between devices are among them: of a recording, the host's side would be gone when it is replayed.

    Raises:
        WaitingError: naming the operation, inside the block.
    """

    only_looks_on = True  # see `gate`

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets an operation through, or refuses it."""
        kwargs = kwargs or {}
        with self:  # in inference mode, operations that are made of others come as they are
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        operation = func.overloadpacket
        if operation in _WAITING or (operation is _ATEN.repeat_interleave and kwargs.get("output_size") is None):
            raise WaitingError(f"{func} looks at values")
        if operation in _INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1]):
            raise WaitingError(f"{func} by bool looks at values")
        result = func(*args, **kwargs)
        if operation in _COPYING:
            devices = {x.device for x in (*tree_leaves(args), *tree_leaves(result)) if isinstance(x, Tensor)}
            if len(devices) > 1:
                raise WaitingError(f"{func} copies between devices")
        return result
