"""What the four model configurations have in common: their checks, and their way to JSON and back."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

ConfigT = TypeVar("ConfigT", bound="ModelConfig")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Base of the frozen configurations. Sizes must be positive integers.

    Raises:
        ValueError: for a value that breaks these rules, naming the field.
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is tuple:
                expected = len(get_args(hint))
                if not isinstance(value, list | tuple) or len(value) != expected:
                    raise ValueError(f"{name} {value!r} must have {expected} entries")
                object.__setattr__(self, name, tuple(value))  # JSON has no tuples
                for size in value:
                    self._check_size(name, size)
            elif hint is int:
                self._check_size(name, value)
            elif hint is bool and not isinstance(value, bool):
                raise ValueError(f"{name} ({value!r}) must be true or false")
            elif hint is float and not (isinstance(value, int | float) and math.isfinite(value) and value):
                raise ValueError(f"{name} ({value!r}) must be a finite number other than 0")

    def _check_size(self, name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} ({value!r}) must be a positive integer")

    def check_divides(self, divisor: str, dividend: str) -> None:
        """Checks that one field divides another."""
        a, b = getattr(self, divisor), getattr(self, dividend)
        if b % a:
            raise ValueError(f"{divisor} ({a}) must divide {dividend} ({b}); change one of the two")

    def check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Checks that a field has one of some values."""
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} ({value!r}) must be one of {', '.join(map(repr, choices))}")

    def to_dict(self) -> dict[str, Any]:
        """Maps the configuration to what JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        """Maps the configuration to JSON, as `--config` of the converter takes it."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """Maps field names and values to a configuration.

        Raises:
            ValueError: for names that are no fields, listing those there are.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - fields)
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(fields))}"
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
