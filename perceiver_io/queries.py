"""Output queries: what the decoder is asked for, one row per output (paper, section 3.2).

Any query can be asked for some of its outputs: `points` as in `position_encoding`. `chunks` cuts points (and the mask
that goes with them) into pieces; decoding these one by one gives what decoding them at once does.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.checks import as_mask, as_number, check_points
from perceiver_io.position_encoding import Points, PositionEncoding, select_rows
from perceiver_io.preprocessors import InputTokens


class OutputQuery(nn.Module):
    """Base of queries: maps points to query rows.

    Attributes:
        reads_inputs: whether `forward` needs the preprocessed inputs, which are then kept with the encoding.
        num_channels: channels of a query.
    """

    reads_inputs: bool = False
    num_channels: int

    def num_outputs(self, inputs: InputTokens | None) -> int:
        """Number of outputs when all points are asked for."""
        raise NotImplementedError

    def forward(self, points: Any = None, inputs: InputTokens | None = None) -> Tensor:
        """Maps points (in a composite, a dict of them) to queries [batch or 1, points, channels]."""
        raise NotImplementedError

    def chunks(
        self,
        points: Any,
        query_mask: Any,
        inputs: InputTokens | None,
        chunk_size: int | None,
    ) -> Iterator[tuple[Any, Tensor | None]]:
        """Cuts points and their mask [batch, outputs] into pieces of at most `chunk_size` outputs (None: one piece)."""
        check_points(points)
        if chunk_size is None:
            if query_mask is not None:
                query_mask = as_mask("query_mask", query_mask, ("batch", "outputs"))
            yield points, query_mask
            return
        chunk_size = as_number("chunk_size", chunk_size, "None decodes everything at once")
        num_outputs = self.num_outputs(inputs)
        number = num_points(points, num_outputs)
        if query_mask is not None:
            query_mask = as_mask("query_mask", query_mask, ("batch", number))
        for start in range(0, max(1, number), chunk_size):  # no points are one empty piece
            piece = slice(start, start + chunk_size)
            mask = None if query_mask is None else query_mask[:, piece]
            yield cut_points(points, piece, num_outputs), mask


class PositionQuery(OutputQuery):
    """Queries by position: the encoding of each output's place, optionally with the input's features there.

    With a `LearnedPositionEncoding` these are the reference's trainable queries.
    Source: the reference's `BasicDecoder.decoder_query`.

    Args:
        position_encoding: encodes the outputs' positions.
        concat_inputs: number of feature channels of the input to put before the encoding (the inputs without their
            position, `concat_preprocessed_input` of the reference), which must have one token per output; 0 for none.
    """

    def __init__(self, position_encoding: PositionEncoding, *, concat_inputs: int = 0) -> None:
        super().__init__()
        self.position_encoding = position_encoding
        self.concat_inputs = concat_inputs
        self.num_channels = concat_inputs + position_encoding.num_channels
        self.reads_inputs = concat_inputs > 0

    def num_outputs(self, inputs: InputTokens | None) -> int:
        """Number of outputs when all points are asked for."""
        return self.position_encoding.num_points

    def forward(
        self, points: Points = None, inputs: InputTokens | None = None
    ) -> Float[Tensor, "#batch outputs channels"]:
        """Maps points to queries; a batch of one stands for all examples."""
        encoding = self.position_encoding(points)
        if not self.concat_inputs:
            return encoding
        if inputs is None or not isinstance(inputs.features, Tensor):
            raise ValueError(
                f"concat_inputs ({self.concat_inputs}) needs an input of one modality, of the query's own name if "
                "there are several; set it to 0 to query by position alone"
            )
        features = select_rows(inputs.features, points)
        if features.shape[1:] != (encoding.shape[1], self.concat_inputs):
            raise ValueError(
                f"inputs of {features.shape[1]} tokens with {features.shape[2]} feature channels must match the "
                f"{encoding.shape[1]} outputs and concat_inputs ({self.concat_inputs}) to be part of the queries"
            )
        return torch.cat([features, encoding.expand(features.shape[0], -1, -1)], dim=-1)


class InputQuery(OutputQuery):
    """Queries by the preprocessed inputs themselves: one output per token. Source: the reference's `FlowDecoder`."""

    reads_inputs = True

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def num_outputs(self, inputs: InputTokens | None) -> int:
        """Number of outputs when all points are asked for."""
        return _present(inputs).tokens.shape[1]

    def forward(
        self, points: Points = None, inputs: InputTokens | None = None
    ) -> Float[Tensor, "batch outputs channels"]:
        """Selects tokens."""
        return select_rows(_present(inputs).tokens, points)


class NoQuery(OutputQuery):
    """For decoders that do not ask, such as `ProjectionDecoder`: a single empty row, and no points to choose."""

    num_channels = 0

    def num_outputs(self, inputs: InputTokens | None) -> int:
        """One."""
        return 1

    def forward(self, points: Points = None, inputs: InputTokens | None = None) -> Float[Tensor, "1 1 0"]:
        """Returns an empty row.

        Raises:
            ValueError: for points.
        """
        if isinstance(points, Tensor):
            raise ValueError(
                f"points {tuple(points.shape)} must be None: without an output_query there is one output; build the "
                "model with one (PositionQuery) or leave points out"
            )
        return torch.empty(1, 1, 0)


def _present(inputs: InputTokens | None) -> InputTokens:
    if inputs is None:
        raise ValueError("an InputQuery needs an input, of the query's own name if there are several modalities")
    return inputs


def num_points(points: Points, num_outputs: int) -> int:
    """Counts `points` where there are `num_outputs` in all."""
    if isinstance(points, Tensor):
        return points.shape[-2] if points.is_floating_point() else points.shape[-1]
    return len(_range(points, num_outputs))


def cut_points(points: Points, piece: slice, num_outputs: int) -> Points:
    """Cuts a consecutive piece out of `points`."""
    if isinstance(points, Tensor):
        return points[:, piece] if points.is_floating_point() else points[..., piece]
    cut = _range(points, num_outputs)[piece]
    return slice(cut.start, cut.stop, cut.step)


def _range(points: slice | None, num_outputs: int) -> range:
    return range(*(points or slice(None)).indices(num_outputs))
