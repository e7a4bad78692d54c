"""Labelled images written in the formats of real data sets, so that every reader and protocol can be tried."""

import pickle
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Pixels, Source
from facelab.data.formats.writing import written_files, written_folder
from facelab.data.synthetic.pairs import DrawnPairs, draw_pairs
from facelab.data.synthetic.person import PAIR_STREAM, stream
from facelab.data.synthetic.source import reduce_resolution
from facelab.errors import ConfigError, in_range
from facelab.progress import OnProgress

JPEG_QUALITY = 95
LIST_FILE = "list.txt"
LFW_IMAGES, LFW_PAIRS = "images", "pairs.txt"
PICKLE_PROTOCOL = 4  # older protocols store bytes as a call of a function, which a careful reader refuses


def jpeg(image: Pixels, quality: int = JPEG_QUALITY) -> bytes:
    """An RGB image (H, W, 3) as JPEG; ``quality`` is 1 to 100."""
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded)


def write_image_folder(out: Path, faces: Source, progress: OnProgress | None = None) -> Path:
    """Write ``out/person_000000/0000.jpg`` … and the list of ``path label`` lines that FaceX-Zoo reads.

    Args:
        out: The new folder.
        faces: Images and labels.
        progress: Called with (images done, images in all).

    Returns:
        The list, ``out/list.txt``; its paths are relative to ``out``.

    Raises:
        DataError: If ``out`` exists or cannot be written.
    """
    labels = faces.labels.tolist()
    numbers = number_in_class(faces.labels).tolist()
    names = [f"person_{label:06d}/{number:04d}.jpg" for label, number in zip(labels, numbers, strict=True)]
    with written_folder(Path(out)) as folder:
        _write_images(folder, faces, names, progress)
        lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
        (folder / LIST_FILE).write_text("".join(lines), encoding="utf-8")
    return Path(out) / LIST_FILE


def write_lfw(
    out: Path,
    faces: Source,
    folds: int = 10,
    pairs: int = 6000,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Path:
    """Write ``out/images/Person_000000/Person_000000_0001.jpg`` … and ``out/pairs.txt`` in the form of LFW.

    Args:
        out: The new folder.
        faces: Images and labels.
        folds: Number of folds; no person is in two of them.
        pairs: Number of pairs in all, half of them of one person; a multiple of ``2 * folds``.
        seed: Which pairs.
        progress: Called with (images done, images in all).

    Returns:
        The list of pairs.

    Raises:
        ConfigError: If there are too few images for that many pairs.
        DataError: If ``out`` exists or cannot be written.
    """
    drawn = draw_pairs(faces.labels, folds, pairs, seed)
    persons = [f"Person_{label:06d}" for label in faces.labels.tolist()]
    numbers = (number_in_class(faces.labels) + 1).tolist()
    names = [f"{person}/{person}_{number:04d}.jpg" for person, number in zip(persons, numbers, strict=True)]
    with written_folder(Path(out)) as folder:
        _write_images(folder / LFW_IMAGES, faces, names, progress)
        lines = [f"{folds}\t{pairs // (2 * folds)}", *_lfw_lines(drawn, persons, numbers)]
        (folder / LFW_PAIRS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(out) / LFW_PAIRS


def write_bin(path: Path, faces: Source, folds: int = 10, pairs: int = 6000, seed: int = 0) -> Path:
    """Write an InsightFace verification pack: a pickle of (JPEG bytes of both images of each pair, list of answers).

    Args:
        path: The new file, ``.bin``.
        faces: Images and labels.
        folds: Number of consecutive folds with as many same as different pairs; no person is in two of them.
        pairs: Number of pairs in all, half of them of one person; a multiple of ``2 * folds``.
        seed: Which pairs.

    Returns:
        ``path``.

    Raises:
        ConfigError: If there are too few images for that many pairs.
        DataError: If ``path`` exists or cannot be written.
    """
    drawn = draw_pairs(faces.labels, folds, pairs, seed)
    encoded = {row: jpeg(faces.read(row)) for row in np.unique(drawn.pairs).tolist()}
    pack = [encoded[row] for row in drawn.pairs.ravel().tolist()], drawn.same.tolist()
    with written_files(Path(path)) as (part,):
        part.write_bytes(pickle.dumps(pack, PICKLE_PROTOCOL))
    return Path(path)


def write_tinyface(
    out: Path,
    faces: Source,
    resolution: int = 16,
    distractors: float = 0.3,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Path:
    """Write the test folders of TinyFace: ``Probe``, ``Gallery_Match`` and ``Gallery_Distractor``, as ``<id>_<n>.jpg``.

    Half of the images of a person are probes, the other half its gallery; distractors are in no probe. All images are
    reduced to about ``resolution`` pixels and enlarged again: TinyFace is of low resolution throughout.

    Args:
        out: The new folder.
        faces: Images and labels; at least 2 images of each person.
        resolution: Mean height and width in pixels; single images have 0.6 to 1.4 times as many.
        distractors: Share of the persons that are distractors, from 0 up to but not including 1.
        seed: Which persons are distractors, and the resolution of each image.
        progress: Called with (images done, images in all).

    Returns:
        ``out``.

    Raises:
        ConfigError: If an argument is out of range, or a person has a single image.
        DataError: If ``out`` exists or cannot be written.
    """
    in_range("distractors", distractors, 0.0, 1.0, high_open=True)
    in_range("resolution", resolution, 4, 1024)
    if np.bincount(faces.labels).min() < 2:
        raise ConfigError("every person of a TinyFace set needs at least 2 images, one to search and one to be found.")
    random = stream(seed, PAIR_STREAM, 1)
    order = random.permutation(faces.num_classes)
    apart = np.isin(faces.labels, order[: int(distractors * faces.num_classes)])
    numbers = number_in_class(faces.labels)
    part = np.where(apart, "Gallery_Distractor", np.where(numbers % 2 == 0, "Gallery_Match", "Probe"))
    names = [
        f"{folder}/{label}_{number + 1}.jpg"
        for folder, label, number in zip(part.tolist(), faces.labels.tolist(), numbers.tolist(), strict=True)
    ]
    sizes = np.maximum(np.rint(resolution * random.uniform(0.6, 1.4, len(faces))), 4).astype(int)
    with written_folder(Path(out)) as folder:
        _write_images(folder, faces, names, progress, sizes)
    return Path(out)


def number_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image, how many of the same label come before it, (N,)."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    numbers = np.empty(len(labels), np.int64)
    numbers[order] = np.arange(len(labels)) - starts
    return numbers


def _write_images(
    folder: Path,
    faces: Source,
    names: list[str],
    progress: OnProgress | None,
    sizes: NDArray[np.int64] | None = None,
) -> None:
    for parent in sorted({str(Path(name).parent) for name in names}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for row, name in enumerate(names):
        image = faces.read(row)
        (folder / name).write_bytes(jpeg(image if sizes is None else reduce_resolution(image, int(sizes[row]))))
        if progress is not None:
            progress(row + 1, len(names))


def _lfw_lines(drawn: DrawnPairs, persons: list[str], numbers: list[int]) -> list[str]:
    lines = []
    for (first, second), same in zip(drawn.pairs.tolist(), drawn.same.tolist(), strict=True):
        other = [] if same else [persons[second]]
        lines.append("\t".join([persons[first], str(numbers[first]), *other, str(numbers[second])]))
    return lines
