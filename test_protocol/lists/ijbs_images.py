"""Where the face crops of IJB-S lie, and which sighting each of them shows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from facelab.data.alignment.ijbs_lists import VIDEO_FOLDER, medium_of_crop
from facelab.data.formats.files import ARCHIVES, ImageFiles
from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Integers

CROP_FOLDERS = ("aligned", "crops", "images")


def crop_folder(root: Path) -> Path:
    """Where crops lie if nothing is said: the first of `CROP_FOLDERS` below ``root``, or its archive, else ``root``."""
    places = (root / f"{name}{ending}" for name in CROP_FOLDERS for ending in ("", *ARCHIVES))
    return next((place for place in places if place.exists()), root)


def find_crops(root: Path, files: ImageFiles, sighting: Mapping[tuple[str, str], int]) -> tuple[list[str], Integers]:
    """All crops that some template needs; frames of one video follow each other.

    Args:
        root: Folder of the data set, for the message.
        files: Crops, ``<subject>/<name>``.
        sighting: Number of each (subject, medium).

    Returns:
        Names of the N crops, and the number of each one's sighting, (N,).

    Raises:
        DataError: If there is none; where there are videos, the message says how crops are cut.
    """
    subjects = {subject for subject, _ in sighting}
    names: list[str] = []
    numbers: list[int] = []
    for subject, of_subject in files.folders():
        for name in of_subject if subject in subjects else ():
            medium = medium_of_crop(name[len(subject) + 1 :].rpartition(".")[0])
            number = None if medium is None else sighting.get((subject, medium))
            if number is not None:
                names.append(name)
                numbers.append(number)
    if not names:
        raise DataError(_no_crops(root, files.root))
    return names, np.array(numbers, np.int64)


def _no_crops(root: Path, images: Path) -> str:
    if (root / VIDEO_FOLDER).is_dir():
        return (
            f"{root}: holds the videos of IJB-S, but there are no face crops in {images}; "
            f"cut them with: facelab data ijbs-crops {root}"
        )
    return (
        f"{images}: there are no face crops '<subject>/videos_<video>_<frame>.jpg' or '<subject>/img_<n>.jpg' "
        "of the subjects in the lists."
    )
