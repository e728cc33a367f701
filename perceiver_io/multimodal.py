"""Several modalities at once: composites of preprocessors, queries and postprocessors (paper, section 3.2).

Modalities are concatenated in the sorted order of their names. Before that, rows are padded with a trained vector per
modality to a common width, which also tells the modalities apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver_io.checks import as_mask, check_batch
from perceiver_io.initializers import truncated_normal_
from perceiver_io.position_encoding import Points, channels_of
from perceiver_io.postprocessors import OutputPostprocessor, concatenate
from perceiver_io.preprocessors import InputPreprocessor, InputTokens
from perceiver_io.queries import OutputQuery

_PADDING_STD = 0.02
# Attributes of the composites, beside those of their classes.
_TAKEN = {*vars(nn.Module()), "names", "num_channels", "vector"}
ModalityPoints = Mapping[str, Points]


class Modalities(nn.Module):
    """An ordered mapping from modality names, sorted, to modules."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not modules:
            raise ValueError("a dict of modalities must have at least one entry")
        self.names = sorted(modules)
        for name in self.names:
            _check_name(name)
            self.add_module(name, modules[name])

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and modules in sorted order."""
        return ((name, self[name]) for name in self.names)


class ChannelPadding(nn.Module):
    """Pads the rows of each modality to a common width with a trained vector.

    Args:
        channels: width of each modality's rows.
        min_padding_size: width of the widest modality's vector; the common width is that much more.
    """

    def __init__(self, channels: Mapping[str, int], min_padding_size: int) -> None:
        super().__init__()
        if min_padding_size < 0:
            raise ValueError(f"min_padding_size ({min_padding_size}) must not be negative")
        self.num_channels = max(channels.values()) + min_padding_size
        for name, width in channels.items():
            vector = torch.empty(self.num_channels - width)
            self.register_parameter(name, nn.Parameter(truncated_normal_(vector, _PADDING_STD)))

    def forward(
        self, name: str, rows: Float[Tensor, "#batch rows channels"]
    ) -> Float[Tensor, "#batch rows padded_channels"]:
        """Pads the rows of a modality."""
        vector = self.vector(name).to(rows.dtype)
        return torch.cat([rows, vector.expand(*rows.shape[:-1], -1)], dim=-1)

    def vector(self, name: str) -> Float[Tensor, "padding_channels"]:
        """The vector of a modality."""
        return getattr(self, name)


class MultimodalPreprocessor(InputPreprocessor):
    """Maps a dict of raw inputs to the concatenated, padded tokens of all modalities.

    Source: the reference's `MultimodalPreprocessor`.

    Args:
        modalities: a preprocessor per modality, with `num_channels`.
        mask_probs: probability, per modality, that a token is replaced by the modality's trained mask token (QUIRK: in
            evaluation too); modalities left out are not masked; None for no mask tokens at all.
        min_padding_size: see `ChannelPadding`.
    """

    def __init__(
        self,
        modalities: Mapping[str, nn.Module],
        *,
        mask_probs: Mapping[str, float] | None = None,
        min_padding_size: int = 2,
    ) -> None:
        super().__init__()
        self.modalities = Modalities(modalities)
        self.padding = ChannelPadding(
            {name: channels_of(module) for name, module in self.modalities.items()}, min_padding_size
        )
        self.mask_probs = None if mask_probs is None else dict(mask_probs)
        self.mask_tokens = nn.Module()
        if mask_probs is not None:
            _check_names("mask_probs", mask_probs, self.modalities.names)
            for name, prob in mask_probs.items():
                if not 0 <= prob <= 1:
                    raise ValueError(f"mask_probs[{name!r}] ({prob}) must be a probability between 0 and 1")
                token = nn.Parameter(truncated_normal_(torch.empty(self.num_channels), _PADDING_STD))
                self.mask_tokens.register_parameter(name, token)

    @property
    def num_channels(self) -> int:
        """Channels of a token."""
        return self.padding.num_channels

    def forward(  # type: ignore[override]  # inputs are a dict here
        self,
        inputs: Mapping[str, Tensor],
        input_mask: Mapping[str, Tensor | None] | Bool[Tensor, "batch inputs"] | None = None,
        positions: ModalityPoints | None = None,
        masked: Mapping[str, Bool[Tensor, "batch inputs"]] | None = None,
    ) -> InputTokens:
        """Preprocesses a batch.

        Args:
            inputs: raw input of every modality.
            input_mask: True where a token is valid, per modality or for all tokens in sorted order.
            positions: coordinates of the inputs of the modalities that do not lie on their grid.
            masked: True where the mask token replaces a token, for modalities whose masking is chosen, not drawn.

        Raises:
            ValueError: if the names are not those of the modalities, a modality without mask token is to be masked, or
                masks do not fit the tokens.
        """
        masked = {} if masked is None else masked
        positions = {} if positions is None else positions
        _check_names("inputs", inputs, self.modalities.names, complete=True)
        _check_names("masked", masked, sorted(self.mask_probs or {}))
        _check_names("positions", positions, self.modalities.names)
        tokens: dict[str, Tensor] = {}
        features: dict[str, Tensor] = {}
        for name, preprocessor in self.modalities.items():
            preprocessed = preprocessor(inputs[name], positions=positions.get(name))
            first = next(iter(tokens), name)
            if tokens:
                check_batch(name, preprocessed.tokens.shape[0], first, tokens[first].shape[0])
            features[name] = preprocessed.features
            tokens[name] = self._mask(name, self.padding(name, preprocessed.tokens), masked.get(name))
        if isinstance(input_mask, Mapping):
            _check_names("input_mask", input_mask, self.modalities.names)
            shapes = {name: rows.shape[:2] for name, rows in tokens.items()}
            masks = {
                name: None if mask is None else as_mask(f"input_mask[{name!r}]", mask, shapes[name])
                for name, mask in input_mask.items()
            }
            input_mask = _concatenate_masks(masks, {name: length for name, (_, length) in shapes.items()})
        joined = torch.cat(list(tokens.values()), dim=1)
        if input_mask is not None:
            input_mask = as_mask("input_mask", input_mask, joined.shape[:2])
        return InputTokens(joined, features, input_mask)

    def _mask(self, name: str, tokens: Tensor, chosen: Tensor | None) -> Float[Tensor, "batch inputs channels"]:
        prob = (self.mask_probs or {}).get(name, 0)
        if prob == 0 and chosen is None:
            return tokens
        mask_token = getattr(self.mask_tokens, name).to(tokens.dtype)
        if chosen is None:
            if prob == 1:
                return mask_token.expand_as(tokens)
            chosen = torch.rand(tokens.shape[:2], device=tokens.device) < prob
        else:
            chosen = as_mask(f"masked[{name!r}]", chosen, tokens.shape[:2], "masked")
        return torch.where(chosen.unsqueeze(-1), mask_token, tokens)


class MultimodalQuery(OutputQuery):
    """Maps a dict of points to the concatenated, padded queries of these modalities.

    Source: the reference's `MultimodalDecoder.decoder_query`.

    Args:
        modalities: a query per modality, with `num_channels`.
        min_padding_size: see `ChannelPadding`.
    """

    def __init__(self, modalities: Mapping[str, OutputQuery], *, min_padding_size: int = 2) -> None:
        super().__init__()
        self.modalities = Modalities(modalities)
        self.padding = ChannelPadding(
            {name: channels_of(module) for name, module in self.modalities.items()}, min_padding_size
        )
        self.num_channels = self.padding.num_channels
        self.reads_inputs = any(query.reads_inputs for query in modalities.values())

    def forward(
        self, points: ModalityPoints | None = None, inputs: InputTokens | None = None
    ) -> Float[Tensor, "#batch outputs channels"]:
        """Maps points per modality (None: all; left out: none) to queries; inputs are those of the same name."""
        chosen = self._chosen(points)
        queries = [self.padding(name, self.of_modality(name, points_of, inputs)) for name, points_of in chosen.items()]
        batch_size = max(rows.shape[0] for rows in queries)
        return torch.cat([rows.expand(batch_size, -1, -1) for rows in queries], dim=1)

    def of_modality(
        self, name: str, points: Points, inputs: InputTokens | None
    ) -> Float[Tensor, "#batch outputs own_channels"]:
        """Maps points of one modality to its own queries, not padded yet."""
        return self.modalities[name](points, self._inputs_of(name, inputs))

    def chunks(
        self,
        points: ModalityPoints | None,
        query_mask: Mapping[str, Tensor | None] | None,
        inputs: InputTokens | None,
        chunk_size: int | None,
    ) -> Iterator[tuple[dict[str, Points], Tensor | None]]:
        """Cuts the points of one modality after the other, so that a piece has a single one."""
        chosen = self._chosen(points)
        masks = {} if query_mask is None else query_mask
        _check_names("query_mask", masks, list(chosen))
        for name, points_of in chosen.items():
            query, inputs_of = self._query(name), self._inputs_of(name, inputs)
            for piece, mask in query.chunks(points_of, masks.get(name), inputs_of, chunk_size):
                yield {name: piece}, mask

    def _query(self, name: str) -> OutputQuery:
        query = self.modalities[name]
        assert isinstance(query, OutputQuery)
        return query

    def _chosen(self, points: ModalityPoints | None) -> dict[str, Points]:
        if points is None:
            return dict.fromkeys(self.modalities.names)
        _check_names("points", points, self.modalities.names)
        if not points:
            raise ValueError(f"points must name at least one of the modalities {self.modalities.names}; None for all")
        return {name: points[name] for name in self.modalities.names if name in points}

    def _inputs_of(self, name: str, inputs: InputTokens | None) -> InputTokens | None:
        """The modality's own part of the tokens; None for a modality that is no input."""
        if inputs is None or not isinstance(inputs.features, dict) or name not in inputs.features:
            return None
        sizes = {other: features.shape[1] for other, features in inputs.features.items()}
        return InputTokens(split_modalities(inputs.tokens, sizes)[name], inputs.features[name])


class MultimodalPostprocessor(OutputPostprocessor):
    """Maps decoded outputs to a dict with the postprocessed outputs of each modality.

    Source: the reference's `MultimodalPostprocessor`.

    Args:
        modalities: a postprocessor per modality.
    """

    def __init__(self, modalities: Mapping[str, OutputPostprocessor]) -> None:
        super().__init__()
        self.modalities = Modalities(modalities)

    def forward(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Maps decoder outputs [batch, outputs, channels] per modality to results (`split_modalities` makes the dict).

        Raises:
            ValueError: for a name that is no modality.
        """
        _check_names("outputs", outputs, self.modalities.names)
        return {name: self.modalities[name](outputs[name]) for name in self.modalities.names if name in outputs}

    def over_chunks(  # type: ignore[override]  # points and results are dicts here
        self, chunks: Iterable[tuple[Mapping[str, Points], Tensor]]
    ) -> dict[str, Tensor]:
        """Postprocesses chunks of outputs of one modality each, with the points that they were decoded at."""
        parts: dict[str, list[Tensor]] = {}
        for (name,), outputs in chunks:
            postprocessor = self._postprocessor(name)
            parts.setdefault(name, []).append(postprocessor(outputs) if postprocessor.pointwise else outputs)
        results = {name: concatenate(outputs) for name, outputs in parts.items()}
        return {
            name: outputs if self._postprocessor(name).pointwise else self._postprocessor(name)(outputs)
            for name, outputs in results.items()
        }

    def _postprocessor(self, name: str) -> OutputPostprocessor:
        postprocessor = self.modalities[name]
        assert isinstance(postprocessor, OutputPostprocessor)
        return postprocessor


def split_modalities(
    rows: Float[Tensor, "batch rows channels"], sizes: Mapping[str, int]
) -> dict[str, Float[Tensor, "batch _ channels"]]:
    """Maps concatenated rows, and how many of them each modality has, to the rows of each.

    Source: the reference's `restructure`; modalities lie in the sorted order of their names.
    """
    names = sorted(sizes)
    return dict(zip(names, rows.split([sizes[name] for name in names], dim=1), strict=True))


def check_same_modalities(query: nn.Module, postprocessor: nn.Module) -> None:
    """Checks that queries and postprocessors are both dicts, of the same modalities.

    Raises:
        ValueError: if they are not.
    """
    names = [getattr(getattr(stage, "modalities", None), "names", None) for stage in (query, postprocessor)]
    if names[0] != names[1]:
        raise ValueError(
            f"output_query and output_postprocessor must have the same modalities, got {names[0]} and {names[1]}; "
            "an IdentityPostprocessor leaves a modality as it is"
        )


def _concatenate_masks(masks: Mapping[str, Tensor | None], sizes: Mapping[str, int]) -> Tensor | None:
    """Concatenates masks [batch, rows] in the order of `sizes`; a modality without one is valid everywhere."""
    given = [mask for mask in masks.values() if mask is not None]
    if not given:
        return None
    valid = given[0].new_ones(given[0].shape[0], 1)
    parts = []
    for name, size in sizes.items():
        mask = masks.get(name)
        parts.append(valid.expand(-1, size) if mask is None else mask)
    return torch.cat(parts, dim=1)


def _check_name(modality: str) -> None:
    """Checks that a modality's name can be that of a module and of a parameter.

    Raises:
        ValueError: if PyTorch cannot take it.
    """
    if not modality or "." in modality or hasattr(Modalities, modality) or modality in _TAKEN:
        raise ValueError(
            f"{modality!r} cannot be the name of a modality: PyTorch's modules take no empty names, dots, or names of "
            "attributes that every module has; choose another, such as 'sound'"
        )


def _check_names(what: str, given: Any, names: list[str], complete: bool = False) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} ({type(given).__name__}) must be a dict by modality, of {names}")
    unknown = sorted(set(given) - set(names))
    missing = sorted(set(names) - set(given)) if complete else []
    if unknown or missing:
        raise ValueError(f"{what} must name the modalities {names}; unknown: {unknown}, missing: {missing}")
