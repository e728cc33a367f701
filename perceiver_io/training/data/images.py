"""Pictures with classes, from folders as ImageNet comes in."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from perceiver_io.media.images import image_from_bytes, load_image
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.tar_files import LabelledMember
from perceiver_io.training.fingerprints import described, files_digest
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch

# Maps an 8-bit picture to what the model reads; all that is random comes from the generator.
Preparation = Callable[[UInt8[Tensor, "3 height width"], torch.Generator], Float32[Tensor, "3 new_height new_width"]]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


class ImageFolder:
    """Maps draws to "image" and "label", from picture files.

    A file that cannot be read is an error that names it; `SkipUnusable` leaves such files out.

    Args:
        files: see `find_labelled_files`, with `PICTURE_SUFFIXES`; or in archives and rows.
        prepare: see `Preparation`.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(self, files: Sequence[LabelledFile | LabelledMember], prepare: Preparation) -> None:
        if not files:
            raise ValueError("a data set needs at least one picture file")
        self.files: list[LabelledFile | LabelledMember] = list(files)
        self.prepare = prepare

    def fingerprint(self) -> str:
        """Tells these pictures from others: by a digest of their names, content and labels, and their preparation."""
        return f"{files_digest(part for file in self.files for part in file)} {described(self.prepare)}"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> Batch:
        """Reads and prepares a picture.

        Raises:
            FileNotFoundError: if it is no longer there.
            ValueError: if it is damaged, or too small to crop.
        """
        path, label = self.files[draw.index]
        pixels = load_image(path) if isinstance(path, Path) else image_from_bytes(path.read(), str(path))
        picture = torch.from_numpy(pixels).permute(2, 0, 1)
        try:
            image = self.prepare(picture, torch.Generator().manual_seed(draw.seed))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return {"image": image, "label": torch.tensor(label)}
