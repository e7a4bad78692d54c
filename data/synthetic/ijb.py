"""Labelled faces written in the format of IJB-B and IJB-C: loose crops, landmarks, templates, galleries and pairs."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.alignment import Points
from facelab.data.base import Labels, Pixels, Source
from facelab.data.formats.writing import written_folder
from facelab.data.synthetic.export import jpeg, number_in_class
from facelab.data.synthetic.person import PAIR_STREAM, stream
from facelab.errors import ConfigError, DataError, in_range
from facelab.progress import OnProgress

Rows = NDArray[np.int64]
GALLERIES = ("G1", "G2")
PER_PROBE = 3
"""Images of a probe template, at most."""
MARGIN, LEAN, ZOOM = 1.6, 0.35, (0.8, 1.25)
"""Side of a loose crop over that of a face, roll of the face in radians at most, and its size."""
CSV_HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"


@dataclass(frozen=True)
class _Design:
    """Which image is in which template.

    Attributes:
        template: Template id of each image, from 1, (N,).
        media: Medium of each image, (N,): within a template, two images in a row are frames of one video.
        person: Of each template, (T,), by id - 1.
        probe: Whether a template is a probe, (T,).
        gallery: Number of the gallery that each person is in, (C,).
    """

    template: Rows
    media: Rows
    person: Rows
    probe: NDArray[np.bool_]
    gallery: Rows


def write_ijb(
    out: Path,
    faces: Source,
    points: Points,
    pairs: int = 200_000,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Path:
    """Write the lists ``out/meta/ijbc_*`` and the images ``out/loose_crop/1.jpg`` and so on.

    The first third of a person's images (rounded up) is its template in one of the two galleries, the others make probe
    templates of up to three images. A loose crop shows the face rolled and larger or smaller in a wider image, so that
    it has to be aligned by its landmarks.

    Args:
        out: The new folder.
        faces: Images and labels; at least 2 images of each person, and at least 2 persons.
        points: Five landmarks of each image, (x, y) in its pixels, (N, 5, 2).
        pairs: Different pairs of a gallery and a probe template, at most; all same pairs are written beside them.
        seed: Which person is in which gallery, which pairs, and how the crops lie.
        progress: Called with (images done, images in all).

    Returns:
        ``out``.

    Raises:
        ConfigError: If there are too few persons, images or pairs.
        DataError: If landmarks are missing, or ``out`` exists or cannot be written.
    """
    in_range("pairs", pairs, 1, 10**9)
    if points.shape != (len(faces), 5, 2):
        raise DataError(f"{len(faces)} images need five landmarks each, got an array of shape {points.shape}.")
    random = stream(seed, PAIR_STREAM, 2)
    design = _design(faces.labels, random)
    # As in the originals, the images of a template are strewn over the list.
    order = random.permutation(len(faces))
    with written_folder(Path(out)) as folder:
        (folder / "loose_crop").mkdir()
        lines = []
        for number, row in enumerate(order.tolist(), 1):
            crop, five = loose_crop(faces.read(row), points[row], random)
            (folder / "loose_crop" / f"{number}.jpg").write_bytes(jpeg(crop))
            lines.append(" ".join(f"{value:.3f}" for value in (*five.ravel(), random.uniform(0.5, 1.0))))
            if progress is not None:
                progress(number, len(faces))
        _write_lists(folder / "meta", design, order, lines, _pairs(design, pairs, random))
    return Path(out)


def loose_crop(face: Pixels, points: Points, random: np.random.Generator) -> tuple[Pixels, Points]:
    """A face rolled and resized at random in a wider image whose border repeats the face's.

    Args:
        face: RGB, uint8, (H, W, 3).
        points: Places in it, (K, 2).
        random: Where the numbers come from.

    Returns:
        The crop, and the places in it.
    """
    height, width = face.shape[:2]
    side = (round(MARGIN * width), round(MARGIN * height))
    turn = random.uniform(*ZOOM) * np.exp(1j * random.uniform(-LEAN, LEAN))
    linear = np.array([(turn.real, -turn.imag), (turn.imag, turn.real)])
    centre, target = (np.array([w - 1, h - 1]) / 2.0 for w, h in ((width, height), side))
    matrix = np.column_stack((linear, target - linear @ centre))
    crop = cv2.warpAffine(face, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8), points @ linear.T + matrix[:, 2]


def _design(labels: Labels, random: np.random.Generator) -> _Design:
    counts = np.bincount(labels)
    if len(counts) < len(GALLERIES) or counts.min() < 2:
        raise ConfigError("an IJB set needs at least 2 persons, and of each at least 2 images: gallery and probe.")
    number = number_in_class(labels)
    in_gallery = -(-counts // 3)[labels]
    group = np.where(number < in_gallery, 0, 1 + (number - in_gallery) // PER_PROBE)
    keys, template = np.unique(np.stack((labels, group)), axis=1, return_inverse=True)
    ids = random.permutation(keys.shape[1])  # as in the originals, the number of a template says nothing
    person, probe = np.empty((2, len(ids)), np.int64)
    person[ids], probe[ids] = keys[0], keys[1] > 0
    within = np.where(group == 0, number, (number - in_gallery) % PER_PROBE)
    media = 1000 + np.unique(np.stack((template.ravel(), within // 2)), axis=1, return_inverse=True)[1].ravel()
    gallery = random.permutation(len(counts)) % len(GALLERIES)
    return _Design(ids[template.ravel()] + 1, media, person, probe.astype(bool), gallery)


def _pairs(design: _Design, most: int, random: np.random.Generator) -> Rows:
    """Ids of gallery and probe templates and the label, (P, 3): all same pairs, and different ones up to a number."""
    gallery, probe = np.flatnonzero(~design.probe), np.flatnonzero(design.probe)
    owner = np.full(len(design.gallery), -1)
    owner[design.person[gallery]] = gallery
    mate = owner[design.person[probe]]
    if len(gallery) * len(probe) - len(probe) <= most:
        left, right = (side.ravel() for side in np.meshgrid(gallery, probe))
        different = np.stack((left, right), 1)[design.person[left] != design.person[right]]
    else:
        drawn = random.choice(len(gallery) * len(probe), most, replace=False)
        different = np.stack((gallery[drawn // len(probe)], probe[drawn % len(probe)]), 1)
        different = different[design.person[different[:, 0]] != design.person[different[:, 1]]]
    same = np.stack((mate, probe), 1)
    rows = np.concatenate((same, different)) + 1
    return random.permutation(np.column_stack((rows, np.arange(len(rows)) < len(same))), axis=0)


def _write_lists(meta: Path, design: _Design, order: Rows, landmarks: list[str], pairs: Rows) -> None:
    meta.mkdir()
    template, media = design.template[order], design.media[order]
    names = [f"{number}.jpg" for number in range(1, len(order) + 1)]
    images = [f"{name} {t} {m}" for name, t, m in zip(names, template.tolist(), media.tolist(), strict=True)]
    _write(meta / "ijbc_face_tid_mid.txt", images)
    _write(meta / "ijbc_name_5pts_score.txt", [f"{n} {five}" for n, five in zip(names, landmarks, strict=True)])
    _write(meta / "ijbc_template_pair_label.txt", [f"{a} {b} {same}" for a, b, same in pairs.tolist()])
    person, probe = design.person[template - 1], design.probe[template - 1]
    csv = np.array([f"{t},{p},{n},{m},0,0,0,0" for t, p, n, m in zip(template, person, names, media, strict=True)])
    _write(meta / "ijbc_1N_probe_mixed.csv", [CSV_HEADER, *csv[probe]])
    for number, name in enumerate(GALLERIES):
        inside = ~probe & (design.gallery[person] == number)
        _write(meta / f"ijbc_1N_gallery_{name}.csv", [CSV_HEADER, *csv[inside]])


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
