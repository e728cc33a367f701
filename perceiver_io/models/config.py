"""Base of the model configurations: their checks, their way to JSON and back, and the encoder's sizes."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from perceiver_io.attention import Activation
from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.encoder import PerceiverEncoder, Round

ConfigT = TypeVar("ConfigT", bound="ModelConfig")

# Sizes in files are not believed: what is larger than these was made to fill a machine.
_MOST, _MOST_LAYERS = 2**24, 10_000
_LAYERS = {
    *("num_self_attends_per_block", "num_blocks", "num_cross_attends", "num_rounds", "num_layers"),
    "num_self_attends",
}


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
                any_number = get_args(hint)[-1] is ...
                expected = "one or more" if any_number else len(get_args(hint))
                if not isinstance(value, list | tuple) or (not value if any_number else len(value) != expected):
                    raise ValueError(f"{name} {value!r} must have {expected} entries")
                object.__setattr__(self, name, tuple(value))  # JSON has no tuples
                for size in value:
                    self._check_size(name, size)
            elif hint is int or (hint == int | None and value is not None):
                self._check_size(name, value)
            elif hint is bool and not isinstance(value, bool):
                raise ValueError(f"{name} ({value!r}) must be true or false")
            elif hint is float and not _is_finite(value):
                raise ValueError(f"{name} ({value!r}) must be a finite number")

    def _check_size(self, name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} ({value!r}) must be a positive integer")
        most = _MOST_LAYERS if name in _LAYERS else _MOST
        if value > most:
            raise ValueError(f"{name} ({str(value)[:20]}) must be at most {most:,}")

    def check_divides(self, divisor: str, dividend: str) -> None:
        """Checks that one field divides another."""
        a, b = getattr(self, divisor), getattr(self, dividend)
        if b % a:
            raise ValueError(f"{divisor} ({a}) must divide {dividend} ({b}); change one of the two")

    def check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Checks that a field has one of some values."""
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} ({str(value)[:100]!r}) must be one of {', '.join(map(repr, choices))}")

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
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise ValueError(f"a {cls.__name__} is made of a mapping from its fields' names to values")
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - fields)
        if unknown:
            names = ", ".join(unknown[:5])[:200]
            raise ValueError(f"{cls.__name__} has no field {names}; its fields are {', '.join(sorted(fields))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(ModelConfig):
    """Base of the configurations of models with a `PerceiverEncoder`.

    The fields from `activation` on are for models that others trained; the released ones have the defaults.

    Attributes:
        num_latents: number of latents.
        num_latent_channels: channels of a latent.
        num_self_attends_per_block: self-attention layers in a block.
        num_blocks: how many blocks are applied.
        num_self_attend_heads: heads of the self-attentions.
        num_cross_attend_heads: heads of the encoder's cross-attention.
        activation: of all MLPs, see `attention.MLP`.
        num_cross_attends: how many of the blocks, from the first on, follow a cross-attention to the inputs.
        share_first_cross_attend: whether the first cross-attention is the same as the later ones, which always are.
        share_first_block: whether the first block is the same as the later ones, which always are.
        cross_attend_widening_factor: of the MLP after the encoder's cross-attention.
        self_attend_widening_factor: of the MLPs after self-attention.
    """

    num_latents: int = 512
    num_latent_channels: int = 1024
    num_self_attends_per_block: int = 6
    num_blocks: int = 8
    num_self_attend_heads: int = 8
    num_cross_attend_heads: int = 1
    activation: Activation = "gelu_tanh"
    num_cross_attends: int = 1
    share_first_cross_attend: bool = True
    share_first_block: bool = True
    cross_attend_widening_factor: int = 1
    self_attend_widening_factor: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_divides("num_self_attend_heads", "num_latent_channels")
        self.check_divides("num_cross_attend_heads", "num_latent_channels")
        self.check_choice("activation", get_args(Activation))
        if self.num_cross_attends > self.num_blocks:
            raise ValueError(
                f"num_cross_attends ({self.num_cross_attends}) must be at most num_blocks ({self.num_blocks}): each "
                "cross-attention is followed by a block"
            )

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The encoder's rounds."""
        return tuple(
            Round(
                None if index >= self.num_cross_attends else int(index > 0 and not self.share_first_cross_attend),
                int(index > 0 and not self.share_first_block),
            )
            for index in range(self.num_blocks)
        )

    def encoder(
        self, input_channels: int, *, qk_channels: int | None = None, v_channels: int | None = None
    ) -> PerceiverEncoder:
        """Builds the encoder of tokens with so many channels; widths as in `PerceiverEncoder`."""
        return PerceiverEncoder(
            input_channels,
            num_latents=self.num_latents,
            num_latent_channels=self.num_latent_channels,
            num_self_attends_per_block=self.num_self_attends_per_block,
            rounds=self.rounds,
            num_self_attend_heads=self.num_self_attend_heads,
            num_cross_attend_heads=self.num_cross_attend_heads,
            qk_channels=qk_channels,
            v_channels=v_channels,
            cross_attend_widening_factor=self.cross_attend_widening_factor,
            self_attend_widening_factor=self.self_attend_widening_factor,
            activation=self.activation,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(EncoderConfig):
    """Base of the configurations of models with one `PerceiverDecoder` for one kind of output.

    Attributes:
        num_decoder_heads: heads of the decoder's cross-attention.
        decoder_qk_channels: width of its queries and keys over all heads; None for the latents' width.
        decoder_query_residual: whether the decoder adds its query to what that attended to.
        decoder_widening_factor: of the MLP after it.
    """

    num_decoder_heads: int = 1
    decoder_qk_channels: int | None = None
    decoder_query_residual: bool = False
    decoder_widening_factor: int = 1

    def decoder(
        self,
        query_channels: int,
        output_channels: int | None,
        *,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        zero_init_output: bool = False,
    ) -> PerceiverDecoder:
        """Builds the decoder; `qk_channels` is the width where the configuration names none."""
        return PerceiverDecoder(
            query_channels,
            self.num_latent_channels,
            output_channels=output_channels,
            num_heads=self.num_decoder_heads,
            qk_channels=self.decoder_qk_channels or qk_channels,
            v_channels=v_channels,
            widening_factor=self.decoder_widening_factor,
            use_query_residual=self.decoder_query_residual,
            activation=self.activation,
            zero_init_output=zero_init_output,
        )
