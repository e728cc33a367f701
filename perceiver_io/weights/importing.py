"""Models from everywhere: which library a file is from, and from there to a model of ours."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_io.atomic import check_replaceable
from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.models.config import DecoderConfig, ModelConfig
from perceiver_io.presets import create_config, model_from_config
from perceiver_io.weights import jobr0, krasserm, krasserm_ar, transformers
from perceiver_io.weights.haiku_conversion import convert_parameters, fitting_presets
from perceiver_io.weights.pystate import read_pystate
from perceiver_io.weights.saving import MODEL_FILES, WeightFormat, save_checkpoint
from perceiver_io.weights.state_dicts import StateDictSource, is_state_dict_source, read_source
from perceiver_io.weights.tables import apply_table, some

# What a source can be, as `--from` names it: what it is called in messages, and whether it looks like that.
DIALECTS: dict[str, tuple[str, Callable[[Mapping[str, Tensor], Mapping[str, Any] | None], bool]]] = {
    "transformers": ("transformers' Perceiver", transformers.recognises),
    "jobr0": ("JOBR0/PerceiverIO_Pytorch's", jobr0.recognises),
    "krasserm": ("krasserm/perceiver-io's", lambda tensors, config: _is_krasserm(tensors, config)),
    "perceiver-pytorch": ("perceiver-pytorch's", lambda tensors, _: _is_perceiver_pytorch(tensors)),
}
KINDS = ("haiku", *DIALECTS)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model of another library, as ours.

    Attributes:
        kind: of the source, one of `KINDS`.
        config: of the model.
        state_dict: of the model.
        sha256: of the source's weights.
        preset: the released model that it is, if it is a Haiku checkpoint.
        class_names: of a classifier, if the source names them.
    """

    kind: str
    config: ModelConfig
    state_dict: dict[str, Tensor]
    sha256: str
    preset: str | None = None
    class_names: list[str] | None = None

    @property
    def num_parameters(self) -> int:
        """Entries of all parameters."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in model_from_config(self.config).parameters())


def import_model(
    source: str | Path, *, kind: str | None = None, preset: str | None = None, **config_overrides: Any
) -> Any:
    """Maps a model of another library to one of ours, in evaluation mode, on the CPU.

    Args:
        source: DeepMind's `.pystate`; a directory of transformers' or krasserm's (`config.json` with weights); a file
            of JOBR0's, or a checkpoint of Lightning's by krasserm.
        kind: one of `KINDS`, where the source does not tell by itself.
        preset: of a Haiku checkpoint; by default the released model that has its names and shapes.
        config_overrides: fields of the configuration that the source does not tell, or that are to differ.

    Raises:
        FileNotFoundError: if the source, or a shard of it, does not exist.
        ValueError: if it is damaged, something else, or does not fit; the message says what it looks like.
    """
    imported = read_model(Path(source), kind=kind, preset=preset, config_overrides=config_overrides)
    with torch.device("meta"):
        model = model_from_config(imported.config)
    model.load_state_dict(imported.state_dict, strict=True, assign=True)
    return model.eval()


def convert_source(
    source: Path,
    destination: Path,
    *,
    kind: str | None = None,
    preset: str | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    weight_format: WeightFormat = "safetensors",
    overwrite: bool = False,
) -> Imported:
    """Writes a model of another library as a directory that `load_model` reads; arguments as in `read_model`.

    Args:
        metadata: notes to keep beside the source's name and hash.
        overwrite: replace a model, and nothing else, that is at the destination.

    Raises:
        ValueError: as `read_model`.
        OSError: if the source cannot be read, or the destination exists or cannot be written.
    """
    check_replaceable(destination, MODEL_FILES if overwrite else ())
    imported = read_model(source, kind=kind, preset=preset, config_overrides=config_overrides)
    notes: dict[str, Any] = {"source": source.name, "source_sha256": imported.sha256}
    notes |= {"preset": imported.preset} if imported.preset else {"source_kind": imported.kind}
    if imported.class_names:
        notes["class_names"] = imported.class_names
    save_checkpoint(
        imported.config,
        imported.state_dict,
        destination,
        metadata={**notes, **(metadata or {})},
        weight_format=weight_format,
        overwrite=overwrite,
    )
    return imported


def read_model(
    source: Path,
    *,
    kind: str | None = None,
    preset: str | None = None,
    config_overrides: Mapping[str, Any] | None = None,
) -> Imported:
    """Reads a model of another library, completely or not at all.

    Args:
        kind: one of `KINDS`; by default recognised.
        preset: of a Haiku checkpoint; by default the released model that has its names and shapes.
        config_overrides: fields of the configuration that the source does not tell, or that are to differ.

    Raises:
        FileNotFoundError: if the source, or a shard of it, does not exist.
        ValueError: if it is damaged, something else, or does not fit.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"there is no kind of source {kind!r}; there are {', '.join(KINDS)}")
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist; `perceiver-io download NAME` fetches a released model, and "
            "`hf download OWNER/NAME --local-dir DIRECTORY` one of the Hugging Face hub"
        )
    if not (source.is_file() or source.is_dir()):  # opening a pipe waits for whoever fills it
        raise ValueError(f"{source} is neither a file on a disk nor a folder; give the weights as one of these")
    overrides = dict(config_overrides or {})
    if kind == "haiku" or (kind is None and not is_state_dict_source(source)):
        return _read_haiku(source, preset, overrides)
    read = read_source(source, krasserm.STAND_INS)
    found = _kind_of(read)
    if kind is not None and found != kind:
        raise ValueError(
            f"{source} {_looks_like(read, found)}, not like {DIALECTS[kind][0]} model; leave out --from {kind}"
        )
    if found is None:
        raise ValueError(f"{source} {_looks_like(read, found)}; what can be taken in is {', '.join(KINDS)}")
    if preset is not None:
        raise ValueError(f"--model {preset} is for Haiku checkpoints; {source} {_looks_like(read, found)}")
    try:
        return _READERS[found](read, overrides)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(source)) else f"{source} {message}") from error


def _read_haiku(source: Path, preset: str | None, overrides: Mapping[str, Any]) -> Imported:
    checkpoint = read_pystate(source)
    if preset is None:
        arrays = {**checkpoint.params, **checkpoint.state}
        fitting = fitting_presets({name: array.shape for name, array in arrays.items()})
        if not fitting:
            raise ValueError(
                f"{source} is a Haiku checkpoint of none of the released models' shapes; say which one it is like with "
                "--model and what differs with --config (in Python: perceiver_io.weights.haiku_conversion.convert_file)"
            )
        preset = fitting[0]
    config = create_config(preset, **overrides)
    state_dict = convert_parameters(checkpoint, preset, config)
    return Imported(kind="haiku", config=config, state_dict=state_dict, sha256=checkpoint.sha256, preset=preset)


def _read_transformers(read: StateDictSource, overrides: Mapping[str, Any]) -> Imported:
    if read.config is None:
        raise ValueError(
            "is a file of transformers' Perceiver without its config.json, which holds heads and other sizes; give the "
            "directory with both"
        )
    with _unreadable_options():
        architecture = transformers.architecture_of(read.tensors, read.config)
        config = _overridden(transformers.model_config(architecture, read.tensors, read.config), overrides)
    state_dict = apply_table(
        transformers.name_table(config), read.tensors, config, f"{read.path} does not fit {architecture}"
    )
    names = transformers.class_names(read.config)
    return Imported(
        kind="transformers",
        config=config,
        state_dict=state_dict,
        sha256=read.sha256,
        class_names=names if names and len(names) == getattr(config, "num_classes", None) else None,
    )


def _read_jobr0(read: StateDictSource, overrides: Mapping[str, Any]) -> Imported:
    with _unreadable_options():
        config = _overridden(jobr0.model_config(read.tensors), overrides)
    wanted = f"{read.path} does not fit JOBR0's {jobr0.preset_of(read.tensors)} model"
    state_dict = apply_table(jobr0.name_table(config), read.tensors, config, wanted)
    return Imported(kind="jobr0", config=config, state_dict=state_dict, sha256=read.sha256)


def _read_krasserm(read: StateDictSource, overrides: Mapping[str, Any]) -> Imported:
    tensors = krasserm.unwrap(read.tensors)
    if krasserm_ar.recognises(tensors):
        return _read_krasserm_ar(read, tensors, overrides)
    settings = krasserm.settings_of(read.config, read.extras)
    model_type = None if read.config is None else str(read.config.get("model_type"))
    if settings is None or (model_type is None and not {"num_latents", "num_latent_channels"} <= settings.keys()):
        raise ValueError(
            "is a file of krasserm's without its options, which say how many heads and blocks there are; give the "
            "directory with its config.json, or Lightning's .ckpt"
        )
    with _unreadable_options():
        config = _overridden(krasserm.model_config(tensors, settings, model_type), overrides)
    assert isinstance(config, DecoderConfig)
    krasserm.check_positions(tensors, config)
    state_dict = apply_table(
        krasserm.name_table(config), tensors, config, f"{read.path} does not fit krasserm's {type(config).__name__}"
    )
    return Imported(kind="krasserm", config=config, state_dict=state_dict, sha256=read.sha256)


def _read_krasserm_ar(read: StateDictSource, tensors: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> Imported:
    described = read.config or {}
    settings = described.get("model_config") or read.extras.get("hyper_parameters")
    if not isinstance(settings, Mapping):
        raise ValueError(
            "is a Perceiver AR of krasserm's without its options, which say how many heads there are; give the "
            "directory with its config.json, or Lightning's .ckpt"
        )
    config = _overridden(krasserm_ar.model_config(settings, described.get("pad_token_id")), overrides)
    assert isinstance(config, PerceiverARConfig)
    krasserm_ar.check_frequencies(tensors, config)
    wanted = f"{read.path} does not fit krasserm's Perceiver AR"
    state_dict = apply_table(krasserm_ar.name_table(config), tensors, config, wanted)
    return Imported(kind="krasserm", config=config, state_dict=state_dict, sha256=read.sha256)


def _is_krasserm(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> bool:
    return krasserm.recognises(tensors, config) or krasserm_ar.recognises(krasserm.unwrap(tensors))


def _is_perceiver_pytorch(tensors: Mapping[str, Tensor]) -> bool:
    """Whether names are those of perceiver-pytorch, of any version, its language model's included."""
    names = {name.removeprefix("perceiver_io.") for name in tensors}
    return "latents" in names and any(name.startswith(("cross_attend_block", "layers.0.")) for name in names)


def _refuse_perceiver_pytorch(read: StateDictSource, overrides: Mapping[str, Any]) -> Imported:
    raise ValueError(
        "looks like perceiver-pytorch's state dict, which does not say how the model was made; build it by its own "
        "arguments from perceiver_io.compat.perceiver_pytorch, whose load_state_dict takes these names"
    )


_READERS: dict[str, Callable[[StateDictSource, Mapping[str, Any]], Imported]] = {
    "transformers": _read_transformers,
    "jobr0": _read_jobr0,
    "krasserm": _read_krasserm,
    "perceiver-pytorch": _refuse_perceiver_pytorch,
}


@contextmanager
def _unreadable_options() -> Iterator[None]:
    """Says of sizes that are missing, or no sizes, what they are: not what their library writes."""
    try:
        yield
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"has a configuration or tensors that its library does not write ({type(error).__name__}: {error}); "
            "download it again"
        ) from error


def _kind_of(read: StateDictSource) -> str | None:
    return next((kind for kind, (_, recognises) in DIALECTS.items() if recognises(read.tensors, read.config)), None)


def _looks_like(read: StateDictSource, kind: str | None) -> str:
    if kind is not None:
        return f"looks like {DIALECTS[kind][0]} model"
    config = read.config or {}
    if "config_class" in config:
        return "is a model of this library already, which perceiver_io.load_model reads"
    if "model_type" in config:
        named = ", ".join(map(str, config.get("architectures") or [])) or "of no named class"
        return f"holds a {config['model_type']} model of transformers ({named})"
    return f"holds {len(read.tensors)} tensors of an unknown model ({some(sorted(read.tensors), 3)})"


def _overridden(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    return type(config).from_dict({**config.to_dict(), **overrides})
