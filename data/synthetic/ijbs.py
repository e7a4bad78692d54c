"""Labelled faces written in the format of IJB-S: lists of videos, photos and galleries, and face crops."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.ijbs_lists import crop_stem
from facelab.data.base import Labels, Source
from facelab.data.formats.writing import written_folder
from facelab.data.synthetic.export import jpeg, number_in_class
from facelab.data.synthetic.person import PAIR_STREAM, stream
from facelab.data.synthetic.source import reduce_resolution
from facelab.errors import ConfigError, in_range
from facelab.progress import OnProgress

PER_VIDEO = 4
"""Persons that are seen in the same videos."""
LEAST = 4
"""Images that a person needs: a photo, and one frame for the gallery, for a probe and from above."""
PHOTO, GALLERY, PROBE, ABOVE = range(4)
METADATA_HEADER = "SUBJECT_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT,FRAME_NUM"
GALLERY_HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"


@dataclass(frozen=True)
class _Picture:
    """Where one image is seen: its subject, its file (``videos/1001.mp4``), its frame there, and what it is for."""

    subject: int
    file: str
    frame: int
    role: int


def write_ijbs(
    out: Path, faces: Source, resolution: int = 24, seed: int = 0, progress: OnProgress | None = None
) -> Path:
    """Write the lists ``out/protocols/ijbs_*.csv`` and ``out/protocols/galleries/*.csv``, and the crops ``out/crops``.

    Of a person's images a quarter are photos: the first is its template in the gallery ``single``, all
    of them that in ``booking``. The next image is a frame of the gallery video, the last one is seen from above (in a
    video, or for every other group of persons in an image), those between are frames of two videos to search with. Four
    persons share their videos. Frames are reduced to a low resolution and enlarged again; photos are not.

    Args:
        out: The new folder.
        faces: Images and labels; at least 4 images of each person, and at least 2 persons.
        resolution: Mean height and width of the frames in pixels; single frames have 0.6 to 1.4 times as many.
        seed: Which person is in which of the two galleries, and the resolution of each frame.
        progress: Called with (images done, images in all).

    Returns:
        ``out``.

    Raises:
        ConfigError: If there are too few persons or images, or the resolution is out of range.
        DataError: If ``out`` exists or cannot be written.
    """
    in_range("resolution", resolution, 4, 1024)
    counts = np.bincount(faces.labels)
    if len(counts) < 2 or counts.min() < LEAST:
        raise ConfigError(f"an IJB-S set needs at least 2 persons, and of each at least {LEAST} images.")
    random = stream(seed, PAIR_STREAM, 3)
    pictures = _pictures(faces.labels, counts)
    sizes = np.maximum(np.rint(resolution * random.uniform(0.6, 1.4, len(faces))), 4).astype(int)
    with written_folder(Path(out)) as folder:
        for row, picture in enumerate(pictures):
            path = folder / "crops" / str(picture.subject) / f"{crop_stem(_medium(picture), picture.frame)}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            face = faces.read(row)
            path.write_bytes(jpeg(face if picture.role == PHOTO else reduce_resolution(face, int(sizes[row]))))
            if progress is not None:
                progress(row + 1, len(faces))
        _write_lists(folder / "protocols", pictures, random.permutation(len(counts)) % 2)
    return Path(out)


def _medium(picture: _Picture) -> str:
    return picture.file.rpartition(".")[0]


def _pictures(labels: Labels, counts: NDArray[np.int64]) -> list[_Picture]:
    return [
        _picture(label, number, int(counts[label]), row)
        for row, (label, number) in enumerate(zip(labels.tolist(), number_in_class(labels).tolist(), strict=True))
    ]


def _picture(person: int, number: int, count: int, row: int) -> _Picture:
    """What the n-th image of a person is; subjects count from 1, as in the original."""
    group, photos = person // PER_VIDEO, count // 4
    frame = 30 * number
    if number < photos:
        return _Picture(person + 1, f"img/{100000 + row}.jpg", 0, PHOTO)
    if number == photos:
        return _Picture(person + 1, f"videos/{4000 + group}.mp4", frame, GALLERY)
    if number < count - 1:
        return _Picture(person + 1, f"videos/{5000 + 1000 * (number % 2) + group}.mp4", frame, PROBE)
    if group % 2:
        return _Picture(person + 1, f"img/{100000 + row}.jpg", 0, ABOVE)
    return _Picture(person + 1, f"videos/{7000 + group}.mp4", frame, ABOVE)


def _write_lists(folder: Path, pictures: list[_Picture], side: NDArray[np.int64]) -> None:
    (folder / "galleries").mkdir(parents=True)
    metadata = [f"{one.subject},{one.file},0,0,112,112,{one.frame}" for one in pictures]
    _write(folder / "ijbs_metadata.csv", METADATA_HEADER, metadata)
    files = {role: list(dict.fromkeys(one.file for one in pictures if one.role == role)) for role in range(4)}
    _write(folder / "ijbs_surveillance_to_single-booking_probe.csv", "FILENAME", [*files[PROBE], *files[GALLERY]])
    _write(folder / "ijbs_surveillance_to_surveillance_probe.csv", "FILENAME", files[PROBE])
    _write(folder / "ijbs_uav_to_single-booking_probe.csv", "FILENAME", files[ABOVE])
    photos = [one for one in pictures if one.role == PHOTO]
    # A dictionary keeps the last of equal keys: from behind, that is each subject's first photo.
    first = list({one.subject: one for one in reversed(photos)}.values())[::-1]
    kinds = {"surveillance": [one for one in pictures if one.role == GALLERY], "single": first, "booking": photos}
    for kind, listed in kinds.items():
        for number in (0, 1):
            inside = [one for one in listed if side[one.subject - 1] == number]
            lines = [f"{one.subject},{one.subject},{one.file},0,0,112,112" for one in inside]
            _write(folder / "galleries" / f"ijbs_surveillance_to_{kind}_g{number + 1}.csv", GALLERY_HEADER, lines)


def _write(path: Path, header: str, lines: list[str]) -> None:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
