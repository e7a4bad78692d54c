"""A folder of aligned faces: what it was made with, the faces, and the list of what was refused."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from facelab.data.alignment.align_files import AlignOptions, align_files
from facelab.data.alignment.landmarks import Landmarks, read_landmarks
from facelab.data.formats.alignment_record import AlignmentRecord
from facelab.data.formats.open_files import open_files
from facelab.data.loading.refusals import Refusal, Refusals
from facelab.errors import DataError

REPORT = "refused.csv"

Watch = Callable[[Iterator[Refusal | None], int], Iterable[Refusal | None]]
"""Passes on what becomes of each face, one by one, of so many."""


@dataclass(frozen=True)
class AlignedFolder:
    """What became of the faces of a list.

    Attributes:
        faces: Their names and landmarks.
        refused: Those that could not be aligned; they are listed in ``refused.csv`` in the folder.
    """

    faces: Landmarks
    refused: Refusals


def align_folder(images: Path, landmarks: Path, out: Path, options: AlignOptions, watch: Watch) -> AlignedFolder:
    """Align the faces of a list into a folder that says how they were aligned.

    Args:
        images: A folder of images, or an archive of one.
        landmarks: The list.
        out: The folder.
        options: How they are aligned and written.
        watch: Sees what becomes of each face, for example to show progress.

    Raises:
        DataError: If the folder holds a list of refused images or faces of another alignment and may not be written
            over, the landmarks are damaged, or, under ``on_error: error``, a face cannot be aligned.
    """
    if (out / REPORT).exists() and not options.overwrite:
        raise DataError(f"{out / REPORT}: exists; write to another folder, or allow it with --overwrite.")
    record = AlignmentRecord.of(options.size, options.form, landmarks)
    if not options.overwrite:
        record.refuse_other(out)
    faces, refused = read_landmarks(landmarks), Refusals()
    for refusal in watch(align_files(open_files(images), faces, out, options), len(faces.names)):
        if refusal is not None:
            refused.add(refusal.location, refusal.reason)
    record.write(out)
    if refused.count:
        refused.write(out / REPORT)
    return AlignedFolder(faces, refused)
