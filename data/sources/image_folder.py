"""A folder, or a tar archive, with one folder of images for each person."""

from pathlib import Path

import numpy as np

from facelab.data.base import SOURCES
from facelab.data.formats.alignment_record import common_folder, read_alignment
from facelab.data.formats.names import PackedNames
from facelab.data.formats.open_files import open_files
from facelab.data.formats.people import person_filter
from facelab.data.sources.file_source import FileSource
from facelab.errors import DataError, in_range


@SOURCES.register("ImageFolder")
class ImageFolder(FileSource):
    """Images as ``root/person/image``; people and images are sorted by name, and labels follow that order.

    What is left out is warned of, with its number and the first name: files without the ending of an image, and images
    that lie beside the people or deeper. Hidden files are passed over in silence.

    Args:
        root: The folder, or an archive (``.tar``, ``.zip``, ``.tar.gz``), read as it is.
        min_images: People with fewer images are left out.
        ids: A file with one person a line: only these are taken.
        exclude_ids: A file with one person a line: these are left out; names that do not occur are harmless.

    Raises:
        DataError: If the root or a file is missing, nobody is left, or ``ids`` names somebody who does not occur.

    Attributes:
        people: Name of each class.
        names: Path of each image below the root.
    """

    def __init__(
        self, root: Path, min_images: int = 1, ids: Path | None = None, exclude_ids: Path | None = None
    ) -> None:
        in_range("ImageFolder min_images", min_images, 1, float("inf"))
        self.files = open_files(Path(root))
        wanted = person_filter(ids, exclude_ids)
        people = [(who, images) for who, images in self.files.people() if wanted(who)]
        wanted.refuse_unmet(root)
        self.warn_of_skipped()
        people = [(who, images) for who, images in people if len(images) >= min_images]
        if not people:
            asked = " of those asked for" if ids is not None or exclude_ids is not None else ""
            skipped = "".join(f" {sentence}" for sentence in self.files.skipped)
            raise DataError(f"{root}: holds no folder of a person{asked} with {min_images} or more images.{skipped}")
        self.people = tuple(who for who, _ in people)
        self.alignment = read_alignment(self.files, common_folder([f"{who}/" for who in self.people]))
        self.num_classes = len(people)
        self.labels = np.repeat(np.arange(len(people)), [len(images) for _, images in people])
        self.names = PackedNames.of(
            image.encode("utf-8", "surrogateescape") for _, images in people for image in images
        )

    def name(self, index: int) -> str:
        """Path of image ``index`` below the root."""
        return self.names[index].decode("utf-8", "surrogateescape")
