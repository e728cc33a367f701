"""Weights of 8 bits for inference, by torchao."""

from typing import TypeVar

from torch import nn

from perceiver_io.optional import needs_extra

Model = TypeVar("Model", bound=nn.Module)


def quantize_int8(model: Model, *, activations: bool = False) -> Model:
    """Rounds the weights of all linear layers to int8, one scale a row, in place, and returns the model.

    They take a quarter of the memory. Errors and speed of each model are in docs/performance.md. Such a model cannot be
    saved by `save_model`: save the float one, and round it after loading.

    Args:
        model: in evaluation mode, in float32 or bfloat16.
        activations: round what the layers are given too, one scale a row, and multiply integers: less precise, and
            faster where layers are wide.

    Raises:
        ImportError: torchao is missing; it comes with the `int8` extra.
        ValueError: for a model in training mode, which rounding would end.
    """
    if model.training:
        raise ValueError("the model is in training mode, and rounded weights do not learn; call model.eval() before")
    with needs_extra("rounding weights to int8", "int8"):
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
    quantize_(model, Int8DynamicActivationInt8WeightConfig() if activations else Int8WeightOnlyConfig())
    return model
