"""The Hugging Face hub as a place for one's own models: `push_to_hub`, its card, and `from_pretrained`.

A repository holds what `save_model` writes, `config.json` and `model.safetensors`, and a card that says what the model
is, from the notes that its training script left.

These are functions. As methods of the models, by `huggingface_hub`'s mixin, its class would be a base of theirs, so
that no model could be imported without it; and the core, which weights are read into, would import what reads them.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from perceiver_io.autoregressive.model import PerceiverAR
from perceiver_io.models.config import ModelConfig
from perceiver_io.optional import needs_extra
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.presets import CONFIG_CLASSES, PRESETS, model_from_config
from perceiver_io.weights.downloads import DownloadError, fetch_snapshot
from perceiver_io.weights.importing import import_model
from perceiver_io.weights.locations import bundled_model, find_model
from perceiver_io.weights.saving import CONFIG_FILE, load_model, save_model

CARD_FILE = "README.md"
NOTES_FILE = "training.json"
# What a card takes from the notes.
_OF_TRAINING = ("data", "command", "recipe", "seed", "device", "minutes")
# By the configuration's class: what the hub calls the task.
_PIPELINES = {
    "LanguageConfig": "fill-mask",
    "PerceiverARConfig": "text-generation",
    "TextClassificationConfig": "text-classification",
    "ImageClassificationConfig": "image-classification",
    "OpticalFlowConfig": "other",
    "VideoAutoencodingConfig": "video-classification",
}


def from_pretrained(name: str | Path, *, revision: str | None = None, **config_overrides: Any) -> Any:
    """Maps a directory, the name of a model, or a repository "owner/name" of the hub to a model, in evaluation mode.

    Repositories of this library are loaded; those of transformers and krasserm are taken in, as by `import_model`.

    Args:
        revision: branch, tag or commit of a repository.
        config_overrides: as in `import_model`; not for models of this library.

    Raises:
        FileNotFoundError: if there is neither a directory nor a model of that name.
        DownloadError: if the repository cannot be fetched.
        ImportError: huggingface_hub is missing; it comes with the `hub` extra.
        ValueError: if it is damaged, or something else.
    """
    directory = Path(name)
    if not directory.is_dir():
        known = str(name) in PRESETS or bundled_model(str(name)) is not None
        if known or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
            directory = find_model(name)
        else:
            directory = fetch_snapshot(str(name), revision=revision)
    if "config_class" not in _read_json(directory / CONFIG_FILE):
        return import_model(directory, **config_overrides)
    if config_overrides:
        raise ValueError(f"{name} is a model of this library, and {CONFIG_FILE} its configuration; leave out overrides")
    return load_model(directory)


def push_to_hub(
    model: PerceiverIO | PerceiverAR | str | Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    licence: str = "apache-2.0",
    commit_message: str = "Perceiver IO model",
) -> str:
    """Publishes a model with its card, and returns the address of the repository, which is made if there is none.

    Args:
        model: or the directory, or name, of one; with a directory, its training notes go into the card.
        repository: "owner/name".
        private: whether others may see it; only for a new one.
        token: of the hub; by default the one that `hf auth login` has left.
        licence: of the weights, by its identifier on the hub.

    Raises:
        ImportError: huggingface_hub is missing; it comes with the `hub` extra.
        ValueError: for a model that has no configuration.
        DownloadError: if the hub refuses.
    """
    with needs_extra("publishing on the hub", "hub"):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if isinstance(model, str | Path):
            source = find_model(model)
            shutil.copytree(source, folder, ignore=lambda _, names: [n for n in names if not _is_published(n)])
            load_model(folder)  # nothing broken is published
        else:
            save_model(model, folder)
        (folder / CARD_FILE).write_text(model_card(folder, licence=licence), encoding="utf-8")
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="perceiver-io")
        try:
            made = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=commit_message)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DownloadError(f"cannot publish {repository} ({reason}); log in with `hf auth login`") from error
    return str(made)


def model_card(directory: str | Path, *, licence: str = "apache-2.0") -> str:
    """Maps a model's directory to its card in Markdown: what it is, where it comes from, how it was trained.

    Says nothing that is not in the directory's files.
    """
    directory = Path(directory)
    description = _read_json(directory / CONFIG_FILE)
    config = CONFIG_CLASSES[description["config_class"]].from_dict(description["config"])
    notes = _read_json(directory / NOTES_FILE) if (directory / NOTES_FILE).is_file() else {}
    header = [
        "---",
        "library_name: perceiver-io",
        f"license: {licence}",
        f"pipeline_tag: {_PIPELINES.get(type(config).__name__, 'other')}",
        "tags: [perceiver-io, pytorch]",
        "---",
    ]
    lines = [
        *header,
        "",
        f"# {type(config).__name__.removesuffix('Config')} Perceiver",
        "",
        f"{_num_parameters(config):,} parameters, of the library perceiver-io (PyTorch).",
        "",
        "```python",
        "from perceiver_io import from_pretrained",
        "",
        'model = from_pretrained("OWNER/NAME")  # this repository',
        "```",
    ]
    metadata = {key: value for key, value in description.get("metadata", {}).items() if key != "class_names"}
    for title, values in (
        ("Where it comes from", metadata),
        ("Training", {key: notes[key] for key in _OF_TRAINING if key in notes}),
        ("Measured", notes.get("results", {})),
        ("Configuration", description["config"]),
    ):
        if values:
            lines += ["", f"## {title}", "", "| | |", "| --- | --- |"]
            lines += [f"| {key} | {_cell(value)} |" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _is_published(name: str) -> bool:
    return name in (CONFIG_FILE, NOTES_FILE, "loss.png") or name.endswith((".safetensors", ".pth"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; a model's directory has one") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); write or fetch it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def _num_parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_from_config(config).parameters())


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
