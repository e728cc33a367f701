"""Decoding with what follows the decoder, and without what all queries share.

The decoder's last layer and the linear layer that a postprocessor begins with compose into one small matrix
(`R (W x + b) + c = (R W) x + (R b + c)`), which also composes with the MLP's second layer: of the 512 channels that the
video model decodes, three are wanted. And the trained vector that pads all queries of a modality meets the keys once
rather than once per query. Less work wherever `cross_attention.look_up` is; for other decoders, and for modules that
something is attached to, the stages are called one after the other.
"""

from abc import ABCMeta
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.fast.cross_attention import FastCrossAttention, associates, look_up, looks_up_cheaply, pad
from perceiver_io.fast.gate import are_alike, is_plain_inference, is_untouched, rely_on, trust
from perceiver_io.fast.graphs import GraphedCall
from perceiver_io.fast.linear import AffineMap
from perceiver_io.multimodal import ChannelPadding, MultimodalPostprocessor, MultimodalQuery
from perceiver_io.perceiver import Encoding, PerceiverIO, Progress
from perceiver_io.position_encoding import Points
from perceiver_io.postprocessors import (
    AudioPostprocessor,
    ClassificationPostprocessor,
    FirstOutputPostprocessor,
    IdentityPostprocessor,
    OutputPostprocessor,
    ProjectionPostprocessor,
    TiedEmbeddingPostprocessor,
)
from perceiver_io.preprocessors import InputTokens

# The linear layers that outputs are given to, by modality; None where there is one modality, or no such layer.
Readouts = Mapping[str | None, AffineMap | None]


class FastDecoding(GraphedCall, PerceiverIO):
    """`PerceiverIO` whose decoder does what the postprocessor begins with; see `accelerate_decoding`."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Keeps what a model's class does with new subclasses from those that are made here."""

    def decode(
        self,
        encoding: Encoding,
        points: Points | Mapping[str, Points] = None,
        query_mask: Any = None,
        chunk_size: int | None = None,
        progress: Progress = iter,
    ) -> Any:
        """Maps an encoding to outputs, see `PerceiverIO.decode`."""
        plain_class = _plain_class(self)
        if (
            plain_class.decode is not PerceiverIO.decode  # replaced since
            or type(self) not in PLAIN_CLASSES  # made plain since, or of another class that others made of it
            or not is_plain_inference(encoding.latents)
        ):
            return plain_class.decode(self, encoding, points, query_mask, chunk_size, progress)
        readouts, rest = _split(self.output_postprocessor)
        chunks = list(self.output_query.chunks(points, query_mask, encoding.inputs, chunk_size))
        return rest.over_chunks(
            (chunk, _decode_chunk(self, encoding, chunk, mask, readouts)) for chunk, mask in progress(chunks)
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles name the model's own class, which can be imported."""
        plain_class = _plain_class(self)
        reduced = plain_class.__reduce_ex__(self, max(int(protocol), 2))
        if isinstance(reduced, str) or type(self) not in PLAIN_CLASSES:
            return reduced
        make, arguments, *rest = reduced
        make, *arguments = (plain_class if part is type(self) else part for part in (make, *arguments))
        return _make_accelerated, (make, *arguments), *rest


# The classes of models without this, by those that were made of them.
PLAIN_CLASSES: dict[type[nn.Module], type[PerceiverIO]] = {}
_FAST_CLASSES: dict[type[PerceiverIO], type[FastDecoding]] = {}


def accelerate_decoding(model: PerceiverIO) -> None:
    """Gives a model a class of the same name as its own that decodes as `FastDecoding` does, where that can be.

    Models with a `decode` of their own stay as they are, and so do parametrised ones, whose class PyTorch made, and
    those whose class is made by a metaclass.
    """
    plain_class = type(model)
    is_parametrized = "parametrizations" in vars(model).get("_modules", {})
    if plain_class.decode is not PerceiverIO.decode or is_parametrized or type(plain_class) not in (type, ABCMeta):
        return
    if plain_class not in _FAST_CLASSES:
        namespace = {"__module__": plain_class.__module__, "__doc__": plain_class.__doc__}
        fast_class = type(plain_class.__name__, (FastDecoding, plain_class), namespace)
        PLAIN_CLASSES[fast_class], _FAST_CLASSES[plain_class] = plain_class, fast_class
    object.__setattr__(model, "__class__", _FAST_CLASSES[plain_class])


def _make_accelerated(make: Callable[..., Any], *arguments: Any) -> Any:
    model = make(*arguments)
    if isinstance(model, PerceiverIO):
        accelerate_decoding(model)
    return model


def _plain_class(model: PerceiverIO) -> type[PerceiverIO]:
    """The class that a model has when it is plain; `PerceiverIO` for classes that others made of accelerated ones."""
    kind = type(model)
    return PLAIN_CLASSES.get(kind) or (PerceiverIO if issubclass(kind, FastDecoding) else kind)


def _decode_chunk(
    model: PerceiverIO, encoding: Encoding, points: Any, query_mask: Tensor | None, readouts: Readouts
) -> Tensor:
    name, queries, padding = _queries(model.output_query, points, encoding.inputs)
    readout = readouts.get(name)
    folded = _decode_folded(model.decoder, queries, encoding.latents, query_mask, padding, readout)
    if folded is not None:
        return folded
    outputs = model.decoder(pad(queries, padding), encoding.latents, query_mask)
    return outputs if readout is None else readout(outputs)


def _queries(query: nn.Module, points: Any, inputs: InputTokens | None) -> tuple[str | None, Tensor, Tensor | None]:
    """A chunk's modality, its queries and, separately where that is possible, the channels that these share."""
    if not isinstance(query, MultimodalQuery):  # or one that is wrapped, which names modalities as well
        name = next(iter(points)) if isinstance(points, Mapping) else None
        return name, query(points, inputs), None
    (name,) = points
    if not is_untouched(query, query.padding):
        return name, query(points, inputs), None
    return name, query.of_modality(name, points[name], inputs), query.padding.vector(name)


def _decode_folded(
    decoder: nn.Module,
    queries: Tensor,
    latents: Tensor,
    query_mask: Tensor | None,
    padding: Tensor | None,
    readout: AffineMap | None,
) -> Tensor | None:
    """Decodes and applies the readout in one, or returns None where that does not serve."""
    if not (isinstance(decoder, PerceiverDecoder) and is_untouched(decoder, decoder.cross_attend)):
        return None
    block, output = decoder.cross_attend, decoder.output
    if not isinstance(block, FastCrossAttention):  # made plain, or put in place since
        return None
    mask = None
    if query_mask is not None:
        shape = len(latents), queries.shape[1]
        if not isinstance(query_mask, Tensor) or query_mask.dtype != torch.bool or query_mask.shape != shape:
            return None
        mask = query_mask[:, :, None]
    if output is not None:
        if not (is_untouched(output) and are_alike(latents, output.weight, output.bias)):
            return None
        last = AffineMap(output.weight, output.bias)
        readout = last if readout is None else readout.after(last)
    shared = 0 if padding is None else len(padding)
    if not (
        associates(block, queries, latents, mask)
        and are_alike(latents, *(readout or ()), *(() if not shared else (padding,)))
        and looks_up_cheaply(block, queries, latents, mask, shared)
    ):
        return None
    return look_up(block, queries, latents, mask, padding if shared else None, readout)


class _Flatten(OutputPostprocessor):
    """The part of an `AudioPostprocessor` after its linear layer."""

    pointwise = True

    def forward(self, outputs: Tensor) -> Tensor:
        """Joins the patches."""
        return outputs.flatten(1)


# What each postprocessor that begins with a linear layer does after it.
_REST: dict[type[nn.Module], type[OutputPostprocessor]] = {
    ProjectionPostprocessor: IdentityPostprocessor,
    ClassificationPostprocessor: FirstOutputPostprocessor,
    AudioPostprocessor: _Flatten,
    TiedEmbeddingPostprocessor: IdentityPostprocessor,
}

trust(PerceiverDecoder, MultimodalQuery, ChannelPadding, MultimodalPostprocessor, *_REST)
rely_on(PerceiverIO, "decode")


def _split(postprocessor: nn.Module) -> tuple[Readouts, Any]:
    """Splits a postprocessor into the linear layers that it begins with and the rest of it."""
    if isinstance(postprocessor, MultimodalPostprocessor) and is_untouched(postprocessor):
        parts = {name: _split(module) for name, module in postprocessor.modalities.items()}
        readouts: Readouts = {name: readout[None] for name, (readout, _) in parts.items()}
        return readouts, MultimodalPostprocessor({name: rest for name, (_, rest) in parts.items()})
    readout = None
    if type(postprocessor) in _REST and is_untouched(postprocessor):
        layer: Any = postprocessor if isinstance(postprocessor, TiedEmbeddingPostprocessor) else postprocessor.linear
        if layer is postprocessor or is_untouched(layer):
            readout = AffineMap(layer.weight, layer.bias)
    return {None: readout}, postprocessor if readout is None else _REST[type(postprocessor)]()
