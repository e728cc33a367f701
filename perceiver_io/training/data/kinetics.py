"""Kinetics as it is found: a folder of clips, named by YouTube's ids and times, and the owners' csv file of labels."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from perceiver_io.media.border import reading
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.clips import VIDEO_SUFFIXES
from perceiver_io.training.data.files import data_files


class LabelledClips(NamedTuple):
    """The clips of a csv file that are there, and the names of those that are not: some are no longer on YouTube."""

    files: list[LabelledFile]
    missing: list[str]


def find_labelled_clips(directory: str | Path, labels: str | Path, names: Sequence[str]) -> LabelledClips:
    """Maps a folder of clips, at any depth, and a csv file of labels to the clips and the numbers of their classes.

    The csv file has a first line with the names of its columns, among them `label`, and either the owners' `youtube_id`
    with `time_start` and `time_end`, or `file`. Clips are named `ID_000010_000020.mp4`, as the usual programs that
    fetch Kinetics do, or `ID.mp4`; or as `file` says, with the folders below `directory` or without any.

    Args:
        names: of the classes, in the order of their numbers.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a csv file without these columns, or a label that is no class; or none of its clips is there.
    """
    directory, labels = Path(directory), Path(labels)
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no folder {directory}; it must hold the clips")
    numbers = {name: number for number, name in enumerate(names)}
    clips: dict[str, list[Path]] = {}
    for path in data_files(directory, VIDEO_SUFFIXES):
        for name in dict.fromkeys((path.stem, path.relative_to(directory).with_suffix("").as_posix())):
            clips.setdefault(name, []).append(path)
    files, missing = [], []
    for line, (wanted, label) in enumerate(_rows(labels), start=2):
        if label not in numbers:
            raise ValueError(
                f"line {line} of {labels} has the label {label[:100]!r}, which is none of the model's {len(names)} "
                f"classes ({', '.join(names[:3])}, …)"
            )
        found = next((clips[name] for name in wanted if name in clips), [])
        if len(found) > 1:
            raise ValueError(
                f"line {line} of {labels} may be {found[0]} or {found[1]}; keep one of them, or name it with its "
                "folder in a column file"
            )
        if found:
            files.append(LabelledFile(found[0], numbers[label]))
        else:
            missing.append(wanted[0])
    if not files:
        raise ValueError(
            f"{directory} has none of the {len(missing)} clips of {labels}"
            f"{f', such as {missing[0]}.mp4' if missing else ''}; give the folder that holds them"
        )
    return LabelledClips(files, missing)


def _rows(path: Path) -> list[tuple[list[str], str]]:
    """The names that a clip may have, without ending, and its label, line by line."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no csv file of labels {path}")
    with reading(path, "a csv file of labels"), path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, strict=True)
        columns, rows = list(table.fieldnames or []), list(table)
    is_owners = {"youtube_id", "time_start", "time_end"} <= set(columns)
    if "label" not in columns or not (is_owners or "file" in columns):
        raise ValueError(
            f"{path} has the columns {', '.join(columns)[:200] or '(none)'}; it must have label, and youtube_id, "
            "time_start and time_end, or file"
        )
    ids = Counter(row.get("youtube_id") for row in rows)
    found: list[tuple[list[str], str]] = []
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"line {line} of {path} has another number of columns than the first line; mend it")
        if not is_owners:
            found.append(([PurePosixPath(row["file"]).with_suffix("").as_posix()], row["label"]))
            continue
        try:
            times = [int(float(row[name])) for name in ("time_start", "time_end")]
        except ValueError as error:
            raise ValueError(f"line {line} of {path} has a time that is no number; mend it") from error
        # Of several parts of one film, none is called by its id alone.
        alone = [row["youtube_id"]] if ids[row["youtube_id"]] == 1 else []
        found.append(([f"{row['youtube_id']}_{times[0]:06}_{times[1]:06}", *alone], row["label"]))
    return found
