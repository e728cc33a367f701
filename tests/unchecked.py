"""Calls without the run-time check of annotations, to see what the library itself says of wrong arguments."""

import inspect
from typing import Any


def unchecked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a function."""
    return inspect.unwrap(function)(*args, **kwargs)


def unchecked_init(cls: Any, *args: Any, **kwargs: Any) -> None:
    """Calls a constructor."""
    inspect.unwrap(cls.__init__)(cls.__new__(cls), *args, **kwargs)
