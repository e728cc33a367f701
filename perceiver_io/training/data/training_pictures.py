"""Pictures to train on: of each, what the drawn window shows is decoded, and augmented here or left to the device."""

from collections.abc import Sequence
from pathlib import Path

import torch

from perceiver_io.media.picture_files import Decoding, PictureFile
from perceiver_io.training.augmentation import TrainingAugmentation
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.data.row_pictures import RowPicture
from perceiver_io.training.data.tar_files import LabelledMember, TarMember
from perceiver_io.training.device_augmentation import unfinished
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch


class TrainingPictures(ImageFolder):
    """Maps draws to "image" and "label", from picture files; the examples of `ImageFolder` by default.

    Args:
        files: see `find_labelled_files`, with `PICTURE_SUFFIXES`; or in archives and rows.
        augmentation: of the pictures.
        decoding: of JPEGs; one that is scaled makes other pictures, and so another fingerprint.
        finished: whether pictures are augmented here. Otherwise crops leave as they were decoded, with all that is
            drawn for them, for `AugmentedOnDevice`.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(
        self,
        files: Sequence[LabelledFile | LabelledMember],
        augmentation: TrainingAugmentation,
        decoding: Decoding | None = None,
        *,
        finished: bool = True,
    ) -> None:
        super().__init__(files, augmentation)
        self.augmentation = augmentation
        self.decoding = decoding or Decoding()
        self.finished = finished

    def fingerprint(self) -> str:
        """Tells these pictures from others: by a digest of their names, content and labels, and their preparation."""
        scaled = " decoded at the size needed" if self.decoding.scaled else ""
        return f"{super().fingerprint()}{scaled}"

    def __getitem__(self, draw: Draw) -> Batch:
        """Reads and augments a picture.

        Raises:
            FileNotFoundError: if it is no longer there.
            ValueError: if it is damaged, or too small to crop.
        """
        path, label = self.files[draw.index]
        file = PictureFile(_content(path), str(path), self.decoding)
        generator = torch.Generator().manual_seed(draw.seed)
        try:
            drawn = self.augmentation.draw(file.height, file.width, generator)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        pixels, scale = file.part(drawn.window, self.augmentation.size)
        crop, drawn = torch.from_numpy(pixels).permute(2, 0, 1), drawn.at_scale(scale)
        if not self.finished:
            return {**unfinished(crop, drawn, self.augmentation), "label": torch.tensor(label)}
        return {"image": self.augmentation.apply(crop, drawn), "label": torch.tensor(label)}


def _content(path: Path | TarMember | RowPicture) -> bytes:
    if not isinstance(path, Path):
        return path.read()
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    return path.read_bytes()
