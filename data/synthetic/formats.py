"""One order for synthetic faces in any of the formats: what ``facelab data synthetic`` runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facelab.data.formats.record_writer import write_recordio
from facelab.data.synthetic.export import jpeg, write_bin, write_image_folder, write_lfw, write_tinyface
from facelab.data.synthetic.ijb import write_ijb
from facelab.data.synthetic.ijbs import write_ijbs
from facelab.data.synthetic.source import Split, SyntheticFaces
from facelab.errors import one_of
from facelab.progress import OnProgress


@dataclass(frozen=True)
class Export:
    """What to write.

    Attributes:
        out: Folder; each format gets a folder or file of its own name in it.
        identities: Number of persons.
        per_identity: Images of each.
        size: Height and width in pixels.
        seed: Population, pairs and distractors.
        split: Which persons; by default ``train`` for the training formats and ``test`` for the benchmarks.
        folds: Number of folds of ``lfw`` and ``bin``.
        pairs: Number of their pairs in all.
        resolution: Mean resolution of ``tinyface`` and of the frames of ``ijbs``, in pixels.
        cache: See `SyntheticFaces`.
    """

    out: Path
    identities: int = 100
    per_identity: int = 10
    size: int = 112
    seed: int = 0
    split: Split | None = None
    folds: int = 10
    pairs: int = 600
    resolution: int = 16
    cache: Path | None = None


def write_format(form: str, export: Export, progress: OnProgress | None = None) -> Path:
    """Write one format.

    Args:
        form: A name in `FORMATS`.
        export: What to write.
        progress: Called with (images done, images in all), first while rendering, then while writing.

    Returns:
        The file that a reader is pointed to, or the folder if there is none.

    Raises:
        ConfigError: If the format is unknown, a number is out of range, or there are too few images for the pairs.
        DataError: If the target exists or cannot be written.
    """
    split, write = FORMATS[one_of("format", form, list(FORMATS))]
    faces = SyntheticFaces(
        export.identities,
        export.per_identity,
        export.size,
        export.seed,
        export.split or split,
        cache=export.cache,
        progress=progress,
    )
    return write(export, faces, progress)


def _list(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_image_folder(export.out / "list", faces, progress)


def _lfw(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_lfw(export.out / "lfw", faces, export.folds, export.pairs, export.seed, progress)


def _bin(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_bin(export.out / "synthetic.bin", faces, export.folds, export.pairs, export.seed)


def _tinyface(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_tinyface(export.out / "tinyface", faces, export.resolution, seed=export.seed, progress=progress)


def _ijb(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_ijb(export.out / "IJBC", faces, faces.landmarks, seed=export.seed, progress=progress)


def _ijbs(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    return write_ijbs(export.out / "ijbs", faces, export.resolution, export.seed, progress)


def _record(export: Export, faces: SyntheticFaces, progress: OnProgress | None) -> Path:
    path = export.out / "record" / "train.rec"

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(faces))

    write_recordio(path, faces, lambda row: jpeg(faces.read(row)), progress=report)
    return path


FORMATS: dict[str, tuple[Split, Callable[[Export, SyntheticFaces, OnProgress | None], Path]]] = {
    "list": ("train", _list),
    "record": ("train", _record),
    "lfw": ("test", _lfw),
    "bin": ("test", _bin),
    "tinyface": ("test", _tinyface),
    "ijb": ("test", _ijb),
    "ijbs": ("test", _ijbs),
}
