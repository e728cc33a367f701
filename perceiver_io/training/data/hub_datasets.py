"""Data sets of Hugging Face's `datasets`, from a folder that it saved or by their name on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_io.media.border import reading
from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    import datasets

# Before a name on the hub: hf:allenai/c4/en:train.
HUB_PREFIX = "hf:"
# A folder of `save_to_disk`: of one data set, and of several, each in a folder of its own.
_SAVED, _SAVED_SPLITS = ("dataset_info.json", "state.json"), "dataset_dict.json"


def is_hub_dataset(source: str | Path) -> bool:
    """Whether a source is `hf:NAME`, or a folder that `Dataset.save_to_disk` wrote."""
    path = Path(source)
    return (
        str(source).startswith(HUB_PREFIX)
        or (path / _SAVED_SPLITS).is_file()
        or all((path / name).is_file() for name in _SAVED)
    )


def open_hub_dataset(source: str | Path, *columns: str, way_out: str = "add it") -> "datasets.Dataset":
    """Maps a source for which `is_hub_dataset` holds to its rows, which lie in files of Arrow and are read at random.

    Args:
        source: a folder, or `hf:OWNER/NAME`, after which `/CONFIG` and `:SPLIT` may follow ("train" without it); what
            is not at hand is fetched, whole: a part is named as in `hf:allenai/c4/en:train[:1%]`.
        columns: that it must have.
        way_out: what to do about a missing one, for the error.

    Raises:
        ImportError: `datasets` is missing; it comes with the `datasets` extra.
        ValueError: if it cannot be opened or fetched, is several data sets, or lacks a column.
    """
    with needs_extra("reading data sets of Hugging Face", "datasets"):
        import datasets
    with reading(source, "a data set that can be opened"):
        if str(source).startswith(HUB_PREFIX):
            name, _, split = str(source).removeprefix(HUB_PREFIX).partition(":")
            owner, _, rest = name.partition("/")
            name, _, config = rest.partition("/")
            path = f"{owner}/{name}" if name else owner
            found = datasets.load_dataset(path, config or None, split=split or "train")
        else:
            found = datasets.load_from_disk(str(source))
    if isinstance(found, datasets.DatasetDict):
        folders = ", ".join(str(Path(source) / split) for split in found)
        raise ValueError(f"{source} holds several data sets; name the folder of one: {folders}")
    for column in columns:
        if column not in found.column_names:
            raise ValueError(
                f"{source} has no column {column!r}, only {', '.join(map(repr, found.column_names))}; {way_out}"
            )
    return found
