"""Parts of a model and their cost, stage by stage, without values and in no time."""

import copy
from collections import Counter
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from perceiver_io.encoder import PerceiverEncoder
from perceiver_io.fast import undo_accelerate
from perceiver_io.models import (
    ImageClassificationPerceiver,
    LanguagePerceiver,
    OpticalFlowPerceiver,
    PerceiverClassifier,
    TextClassificationPerceiver,
    VideoAutoencodingPerceiver,
)
from perceiver_io.perceiver import PerceiverIO

Shape = tuple[int, ...]


class StageReport(NamedTuple):
    """A stage of a model and what it costs.

    Attributes:
        stage: "preprocessor", "encoder cross-attention", "latent self-attention" (or "encoder" for one of another
            kind), "query", "decoder", "postprocessor".
        module: its class, with the number of its calls where there may be several.
        parameters: how many it has; what several stages share counts for the first.
        output_shapes: of what it yields, with chunks joined; several where outputs of several widths are decoded.
        flops: multiplications and additions in products and convolutions, each of the two counted.
        weight_bytes: of its parameters and buffers.
        largest_activation_bytes: of the largest tensor that it computes.
    """

    stage: str
    module: str
    parameters: int
    output_shapes: list[Shape]
    flops: int
    weight_bytes: int
    largest_activation_bytes: int


def inspect_stages(model: PerceiverIO, *inputs: Any) -> list[StageReport]:
    """Maps a model to a report of each of its stages, in the plain formulation; `fast` needs less work for the same.

    A copy without values runs on the meta device. What is computed between the stages counts for the preprocessor, or
    after encoding for the postprocessor.

    Args:
        model: on any device; it stays as it is.
        inputs: what `model` is called with; by default `example_inputs(model)`.

    Raises:
        ValueError: if there are no inputs, and the model is not one of the library's task models.
    """
    inputs = tree_map_only(Tensor, lambda tensor: tensor.detach().to("meta"), inputs or example_inputs(model))
    twin = undo_accelerate(_without_values(model))
    meter, shapes = _Meter(twin), _OutputShapes(twin)
    with torch.no_grad(), meter.counter, meter:
        result = twin(*inputs)
    shapes.of["postprocessor"] = [tuple(tensor.shape) for tensor in tree_leaves(result)]

    reports, counted = [], set[int]()
    for stage, (label, paths) in _stages(twin).items():
        modules = [twin.get_submodule(path) for path in paths]
        tensors = {
            id(tensor): tensor
            for module in modules
            for tensor in chain(module.parameters(), module.buffers())
            if id(tensor) not in counted
        }
        counted |= tensors.keys()
        reports.append(
            StageReport(
                stage,
                label,
                sum(tensor.numel() for tensor in tensors.values() if isinstance(tensor, nn.Parameter)),
                shapes.of[stage],
                meter.flops[stage],
                sum(tensor.nbytes for tensor in tensors.values()),
                meter.largest[stage],
            )
        )
    return reports


def total_work(model: PerceiverIO, *inputs: Any) -> int:
    """Counts the work of a model as it is, accelerated or plain: multiplications and additions, each counted.

    A copy without values runs on the meta device.

    Args:
        model: on any device; it stays as it is.
        inputs: what `model` is called with; by default `example_inputs(model)`.

    Raises:
        ValueError: if there are no inputs, and the model is not one of the library's task models.
    """
    inputs = tree_map_only(Tensor, lambda tensor: tensor.detach().to("meta"), inputs or example_inputs(model))
    twin = _without_values(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*inputs)
    return counter.get_total_flops()


def example_inputs(model: PerceiverIO) -> tuple[Tensor, ...]:
    """Maps a task model to inputs of the size that it is made for, a batch of one, on the meta device.

    Raises:
        ValueError: for another model.
    """
    dtype = next(model.parameters()).dtype

    def values(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    match model:
        case LanguagePerceiver(config=config) | TextClassificationPerceiver(config=config):
            return (torch.empty(1, config.max_seq_len, dtype=torch.long, device="meta"),)
        case ImageClassificationPerceiver(config=config):
            return (values(1, config.num_image_channels, *config.image_size),)
        case PerceiverClassifier(config=config):
            return (values(1, config.num_input_channels, *config.index_dims),)
        case OpticalFlowPerceiver(config=config):
            return values(1, 3, *config.image_size), values(1, 3, *config.image_size)
        case VideoAutoencodingPerceiver(config=config):
            return values(1, config.num_frames, 3, *config.image_size), values(1, config.num_audio_samples, 1)
    raise ValueError(f"what a {type(model).__name__} takes is for you to say: inspect_stages(model, *inputs)")


def _stages(model: PerceiverIO) -> dict[str, tuple[str, list[str]]]:
    """The stages of a model: the name of each, what it is, and its modules' paths."""
    kinds = {name: type(module).__name__ for name, module in model.named_children()}
    encoder = {"encoder": (kinds["encoder"], ["encoder"])}
    if isinstance(model.encoder, PerceiverEncoder):
        rounds, blocks = model.encoder.rounds, model.encoder.blocks
        crosses = sum(entry.cross_attend is not None for entry in rounds)
        calls = sum(len(blocks[entry.block]) for entry in rounds)
        encoder = {
            "encoder cross-attention": (
                "CrossAttention" if crosses == 1 else f"{crosses} × CrossAttention",
                ["encoder.latents", "encoder.cross_attend", "encoder.further_cross_attends"],
            ),
            "latent self-attention": (
                f"{calls} × SelfAttention",
                ["encoder.self_attends", "encoder.further_self_attends"],
            ),
        }
    return {
        "preprocessor": (kinds["input_preprocessor"], ["input_preprocessor"]),
        **encoder,
        "query": (kinds["output_query"], ["output_query"]),
        "decoder": (kinds["decoder"], ["decoder"]),
        "postprocessor": (kinds["output_postprocessor"], ["output_postprocessor"]),
    }


def _without_values(model: PerceiverIO) -> PerceiverIO:
    """A copy of a model on the meta device, made without copying a value."""
    twins: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        twin = tensor.detach().to("meta")
        twins[id(tensor)] = nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(model, twins).eval()


class _Meter(TorchDispatchMode):
    """Counts, for each stage of a running model, operations, and keeps the size of the largest tensor computed."""

    def __init__(self, model: PerceiverIO) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = FlopCounterMode(display=False)
        self.flops = Counter[str]()
        self.largest = Counter[str]()
        root = type(model).__name__
        self._prefixes = {f"{root}.{path}.": stage for stage, (_, paths) in _stages(model).items() for path in paths}
        self._between = "preprocessor"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stage = self._stage()
        before = self.counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        self.flops[stage] += self.counter.get_total_flops() - before
        # Views, and what is computed in place, have the memory of another tensor.
        if not any(returned.alias_info for returned in func._schema.returns):
            sizes = (tensor.nbytes for tensor in tree_leaves(result) if isinstance(tensor, Tensor))
            self.largest[stage] = max(self.largest[stage], *sizes, 0)
        return result

    def _stage(self) -> str:
        for module in self.counter.mod_tracker.parents:
            for prefix, stage in self._prefixes.items():
                if f"{module}.".startswith(prefix):
                    if stage != "preprocessor":
                        self._between = "postprocessor"
                    return stage
        return self._between


class _OutputShapes:
    """Keeps the shapes of what the stages of a running model yield.

    Attributes:
        of: the shapes of each stage.
    """

    def __init__(self, model: PerceiverIO) -> None:
        self.of: dict[str, list[Shape]] = {stage: [] for stage in _stages(model)}
        encoder = "encoder" if "encoder" in self.of else "latent self-attention"
        model.input_preprocessor.register_forward_hook(
            lambda module, args, output: self._add("preprocessor", output.tokens.shape)
        )
        model.encoder.register_forward_hook(lambda module, args, output: self._add(encoder, output.shape))
        if isinstance(model.encoder, PerceiverEncoder):
            model.encoder.cross_attend.register_forward_hook(
                lambda module, args, output: self._add("encoder cross-attention", output.shape)
            )
        model.decoder.register_forward_hook(self._decoded)

    def _decoded(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._add("query", args[0].shape)
        self._add("decoder", output.shape)

    def _add(self, stage: str, shape: Shape) -> None:
        """Adds a shape; that of a chunk is joined with the one before if they can be concatenated."""
        shapes = self.of[stage]
        batch, rows, *rest = shape
        if shapes and rest and (shapes[-1][0], *shapes[-1][2:]) == (batch, *rest):
            shapes[-1] = (batch, shapes[-1][1] + rows, *rest)
        else:
            shapes.append((batch, rows, *rest))
