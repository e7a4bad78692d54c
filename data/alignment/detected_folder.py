"""Photos -> a folder of aligned faces, which says how they were found and goes on where it was interrupted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facelab.data.alignment.align_files import AHEAD, AlignOptions, write_crop
from facelab.data.alignment.aligned_folder import REPORT
from facelab.data.alignment.crop_names import crop_names
from facelab.data.alignment.face_journal import FILE as JOURNAL
from facelab.data.alignment.face_journal import Journal, PhotoEntry, found_faces, read_journal
from facelab.data.alignment.photo_aligner import NoFace, PhotoAligner
from facelab.data.alignment.photos import Photos
from facelab.data.formats.alignment_record import FILE as RECORD
from facelab.data.formats.alignment_record import AlignmentRecord
from facelab.data.formats.images import decode_image
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.loading.refusals import Refusals
from facelab.errors import DataError
from facelab.threads import thread_count
from facelab.weights.temporary import remove_leftovers

Watch = Callable[[Iterator[PhotoEntry], int], Iterable[PhotoEntry]]
"""Passes on what becomes of each photo, one by one, of so many."""


@dataclass(frozen=True)
class DetectedFolder:
    """What became of some photos.

    Attributes:
        photos: How many there are.
        before: How many of them an earlier run had done.
        crops: Aligned faces.
        centred: Photos without a face of which the centre was cropped.
        several: Photos with more faces than were taken.
        refused: Photos without a crop; they are listed in ``refused.csv`` in the folder.
    """

    photos: int
    before: int
    crops: int
    centred: int
    several: int
    refused: Refusals


def align_photos(
    photos: Photos, aligner: PhotoAligner, record: AlignmentRecord, out: Path, options: AlignOptions, watch: Watch
) -> DetectedFolder:
    """Find and align the faces of photos, and write them below ``out`` under the photos' names.

    A run that was interrupted, or that stopped at a photo, goes on when it is called again, and the folder has the same
    bytes as if it had not been; new photos are added, and those whose files have another size are done again.

    Args:
        photos: The photos.
        aligner: Finds and aligns their faces.
        record: Says how.
        out: The folder.
        options: How crops are written, and whether a photo that cannot be read stops the run.
        watch: Sees what becomes of each photo, for example to show progress.

    Raises:
        DataError: If the folder holds other files or faces of another alignment and may not be written over, lies
            among the photos, or two photos would give one file; under ``on_error: error`` at the first photo that
            cannot be read, under ``on_missing: error`` at the first without a face.
    """
    targets = _targets(photos, out)
    if options.overwrite:
        _forget(out)
    else:
        _refuse_foreign(out, record)
    earlier = read_journal(out)
    crops = partial(_crop_files, each=aligner.choice.select == "all", ending=options.format)
    done = {
        name: entry
        for name, entry in earlier.items()
        if _is_done(entry, photos, out)
        and (name not in targets or crops(targets[name], len(entry.faces)) == [face.crop for face in entry.faces])
    }
    record.write(out)
    journal = Journal(out, done)

    def work(name: str) -> PhotoEntry:
        return _aligned(photos, name, partial(crops, targets[name]), aligner, out, options)

    waiting = [name for name in photos.names if name not in done]
    # A photo that was replaced may have fewer faces, and one that got a namesake other crops.
    remove_leftovers(out.rglob(".*.part"))
    _remove(out, [face.crop for name in waiting if name in earlier for face in earlier[name].faces])
    entries = ordered_map(work, waiting, workers=thread_count(options.workers), ahead=AHEAD)
    with journal.open() as write:
        for entry in watch(entries, len(waiting)):
            write(entry)
    journal.finish()
    return _summary([journal.entries[name] for name in photos.names], len(photos.names) - len(waiting), out)


def _aligned(
    photos: Photos,
    name: str,
    crop_files: Callable[[int], list[str]],
    aligner: PhotoAligner,
    out: Path,
    options: AlignOptions,
) -> PhotoEntry:
    """Read a photo, write its crops, and say what became of it."""
    where, size = photos.files.where(name), photos.files.size(name) or 0
    try:
        aligned = aligner.align(decode_image(photos.files.read(name), where), where)
    except NoFace as error:
        if aligner.choice.on_missing == "error":
            raise
        return PhotoEntry(photo=name, bytes=size, refused=str(error))
    except DataError as error:
        if options.on_error == "error":
            raise
        return PhotoEntry(photo=name, bytes=size, refused=str(error))
    crops = crop_files(len(aligned.crops))
    for crop, pixels in zip(crops, aligned.crops, strict=True):
        write_crop(out / crop, pixels, options)
    return PhotoEntry(photo=name, bytes=size, found=aligned.found, faces=found_faces(crops, aligned.faces))


def _targets(photos: Photos, out: Path) -> dict[str, str]:
    """Where the crops of each photo go, without the ending."""
    root = photos.files.root.resolve()
    if out.resolve() == root or (root.is_dir() and out.resolve().is_relative_to(root)):
        raise DataError(f"{out}: lies in the folder of the photos; write to another, or the crops become photos.")
    return crop_names(photos.names, out)


def _crop_files(target: str, count: int, *, each: bool, ending: str) -> list[str]:
    """Files of the crops of a photo, relative to the folder; numbered where each face is taken."""
    return [f"{target}_{number}.{ending}" if each else f"{target}.{ending}" for number in range(count)]


def _forget(out: Path) -> None:
    _remove(out, (RECORD, JOURNAL, REPORT))


def _remove(out: Path, names: Iterable[str]) -> None:
    for name in names:
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{out / name}: cannot be removed ({error.strerror}).") from None


def _refuse_foreign(out: Path, record: AlignmentRecord) -> None:
    """Only a folder that an earlier run began with the same settings is gone on with."""
    record.refuse_other(out)
    if not (out / RECORD).is_file() and out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; write to another folder, or allow it with --overwrite.")


def _is_done(entry: PhotoEntry, photos: Photos, out: Path) -> bool:
    size = photos.files.size(entry.photo)
    return size in (None, entry.bytes) and all((out / face.crop).is_file() for face in entry.faces)


def _summary(entries: list[PhotoEntry], before: int, out: Path) -> DetectedFolder:
    refused = Refusals()
    for entry in entries:
        if entry.refused is not None:
            refused.add(entry.photo, entry.refused)
    _remove(out, [REPORT])
    if refused.count:
        refused.write(out / REPORT)
    return DetectedFolder(
        photos=len(entries),
        before=before,
        crops=sum(len(entry.faces) for entry in entries),
        centred=sum(face.score is None for entry in entries for face in entry.faces),
        several=sum(entry.found > len(entry.faces) for entry in entries if entry.faces),
        refused=refused,
    )
