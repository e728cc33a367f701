"""Perceiver IO: five stages in a row (paper, figure 2).

inputs ─ preprocessor ─ encoder ─ latents ─┐
                                  query ─ decoder ─ postprocessor ─ outputs
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_io.multimodal import (
    MultimodalPostprocessor,
    MultimodalPreprocessor,
    MultimodalQuery,
    check_same_modalities,
)
from perceiver_io.position_encoding import Points, PositionEncoding
from perceiver_io.postprocessors import IdentityPostprocessor, ModulePostprocessor, OutputPostprocessor
from perceiver_io.preprocessors import IdentityPreprocessor, InputPreprocessor, InputTokens, Preprocessor
from perceiver_io.queries import NoQuery, OutputQuery, PositionQuery

Progress = Callable[[Iterable[Any]], Iterable[Any]]


class Encoding(NamedTuple):
    """All that decoding needs to know of the inputs.

    Attributes:
        latents: [batch, latents, channels].
        inputs: the preprocessed inputs, kept only for queries that read them.
    """

    latents: Tensor
    inputs: InputTokens | None


class PerceiverIO(nn.Module):
    """Maps inputs of any kind to outputs of any kind, at a cost linear in the number of both.

    Each of the last three stages may be a dict `{modality: module}`, with different modalities in and out; inputs,
    points and outputs are then dicts too. Source: the reference's `Perceiver`; paper, section 3.

    Args:
        encoder: maps (tokens, input mask) to latents, e.g. `PerceiverEncoder`.
        decoder: maps (queries, latents, query mask) to outputs, e.g. `PerceiverDecoder`.
        input_preprocessor: an `InputPreprocessor`; any other module becomes the featurizer of a `Preprocessor`. None:
            inputs are tokens [batch, inputs, channels].
        output_query: an `OutputQuery`, or a position encoding to query by. None: for decoders that do not use queries.
        output_postprocessor: an `OutputPostprocessor`; any other module is applied once, to all outputs. None: outputs
            are the decoder's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        input_preprocessor: nn.Module | Mapping[str, nn.Module] | None = None,
        output_query: nn.Module | Mapping[str, OutputQuery] | None = None,
        output_postprocessor: nn.Module | Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.input_preprocessor = _as_preprocessor(input_preprocessor)
        self.encoder = encoder
        self.output_query = _as_query(output_query)
        self.decoder = decoder
        self.output_postprocessor = _as_postprocessor(output_postprocessor)
        stem, query = self.input_preprocessor, self.output_query
        _check_width("input_preprocessor", stem, "num_channels", "encoder", encoder, "input_channels")
        _check_width("encoder", encoder, "num_latent_channels", "decoder", decoder, "num_latent_channels")
        _check_width("output_query", query, "num_channels", "decoder", decoder, "query_channels")
        if isinstance(self.output_query, MultimodalQuery) or isinstance(
            self.output_postprocessor, MultimodalPostprocessor
        ):
            check_same_modalities(self.output_query, self.output_postprocessor)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model's weights, and so of its inputs."""
        return next(self.parameters()).dtype

    def encode(
        self,
        inputs: Any,
        input_mask: Any = None,
        positions: Any = None,
        masked: Any = None,
    ) -> Encoding:
        """Maps inputs to their encoding, to be decoded as often as wanted.

        Args:
            inputs: what the preprocessor takes.
            input_mask: [batch, inputs], True where a token is valid; masked tokens have no influence.
            positions: coordinates of the inputs, if not on their grid (see `position_encoding`).
            masked: True where the mask token of a modality replaces a token, see `MultimodalPreprocessor`.
        """
        tokens: InputTokens = self.input_preprocessor(inputs, input_mask, positions, masked)
        latents = self.encoder(tokens.tokens, tokens.mask)
        return Encoding(latents, tokens if self.output_query.reads_inputs else None)

    def decode(
        self,
        encoding: Encoding,
        points: Points | Mapping[str, Points] = None,
        query_mask: Any = None,
        chunk_size: int | None = None,
        progress: Progress = iter,
    ) -> Any:
        """Maps an encoding to outputs.

        Args:
            points: which outputs (see `position_encoding`); None for all. In a dict, None means all points of that
                modality, and leaving it out that it is not decoded.
            query_mask: [batch, outputs], True where an output is wanted, or a dict of these; the others are what the
                decoder makes of no attention.
            chunk_size: decode at most so many outputs at a time, which bounds memory and changes nothing else.
            progress: wraps the iteration over chunks, for instance `tqdm`.
        """
        chunks = list(self.output_query.chunks(points, query_mask, encoding.inputs, chunk_size))
        return self.output_postprocessor.over_chunks(
            (chunk, self.decoder(self.output_query(chunk, encoding.inputs), encoding.latents, mask))
            for chunk, mask in progress(chunks)
        )

    def forward(
        self,
        inputs: Any,
        input_mask: Any = None,
        points: Points | Mapping[str, Points] = None,
        query_mask: Any = None,
        chunk_size: int | None = None,
        positions: Any = None,
        masked: Any = None,
    ) -> Any:
        """Encodes, then decodes; arguments as there."""
        return self.decode(self.encode(inputs, input_mask, positions, masked), points, query_mask, chunk_size)


def _check_width(giver: str, first: nn.Module, given: str, taker: str, second: nn.Module, taken: str) -> None:
    """Checks that a stage yields as many channels as the next takes, where both say so."""
    try:
        yields, takes = getattr(first, given, None), getattr(second, taken, None)
    except ValueError:  # a featurizer that does not say
        return
    if isinstance(yields, int) and isinstance(takes, int) and yields != takes:
        raise ValueError(
            f"the {giver} yields {yields} channels and the {taker} takes {takes}; they must agree: build the {taker} "
            f"with {giver}.{given} ({yields})"
        )


def _as_preprocessor(stage: nn.Module | Mapping[str, nn.Module] | None) -> nn.Module:
    if stage is None:
        return IdentityPreprocessor()
    if isinstance(stage, Mapping):
        return MultimodalPreprocessor({name: _as_preprocessor(module) for name, module in stage.items()})
    return stage if isinstance(stage, InputPreprocessor) else Preprocessor(stage)


def _as_query(stage: nn.Module | Mapping[str, OutputQuery] | None) -> OutputQuery:
    if stage is None:
        return NoQuery()
    if isinstance(stage, Mapping):
        return MultimodalQuery(stage)
    if isinstance(stage, PositionEncoding):
        return PositionQuery(stage)
    if not isinstance(stage, OutputQuery):
        raise ValueError(
            f"output_query ({type(stage).__name__}) must be an OutputQuery, a position encoding, or a dict of queries"
        )
    return stage


def _as_postprocessor(stage: nn.Module | Mapping[str, nn.Module] | None) -> OutputPostprocessor:
    if stage is None:
        return IdentityPostprocessor()
    if isinstance(stage, Mapping):
        return MultimodalPostprocessor({name: _as_postprocessor(module) for name, module in stage.items()})
    return stage if isinstance(stage, OutputPostprocessor) else ModulePostprocessor(stage)
