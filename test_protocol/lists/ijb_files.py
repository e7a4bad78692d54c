"""The ``meta`` folder of IJB-B and IJB-C: which images make a template, and which templates are compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.data.formats.text_list import is_whole
from facelab.errors import DataError
from facelab.outside.file import opened_text
from facelab.test_protocol.base import FloatArray
from facelab.test_protocol.lists.integer_lines import Rows, line_of_row, read_integer_lines
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers
from facelab.test_protocol.metrics.templates import Grouping

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
PAIR_FORM = "template1 template2 label"
MEDIA_FORM = "image template media"
POINTS_FORM = "image x1 y1 ... x5 y5 score"


@dataclass(frozen=True)
class TemplateImages:
    """The images, and the templates that they make.

    Attributes:
        names: Path of each image below ``loose_crop``, N.
        points: Five landmarks of each image, (x, y) in pixels, (N, 5, 2).
        detector_score: Of each image, float32, (N,).
        grouping: Template (row of ``template_ids``) and medium of each image.
        template_ids: Rising, (T,).
        path: The list of templates and media.
        points_path: The list of landmarks and detector scores.
    """

    names: tuple[str, ...]
    points: Floats
    detector_score: FloatArray
    grouping: Grouping
    template_ids: Integers
    path: Path
    points_path: Path

    def rows_of(self, ids: NDArray[np.integer]) -> Integers:
        """Rows of some templates, -1 where there is no such template."""
        # An id above all others is looked for behind the last one, where there is nothing to compare it with.
        places = np.minimum(np.searchsorted(self.template_ids, ids), len(self.template_ids) - 1)
        return np.where(self.template_ids[places] == ids, places, -1)


@dataclass(frozen=True)
class TemplatePairs:
    """Pairs to verify.

    Attributes:
        left: Row of the first template, int32, (P,).
        right: Row of the second template, int32, (P,).
        same: Whether both show one person, (P,).
    """

    left: Rows
    right: Rows
    same: Booleans


@dataclass(frozen=True)
class People:
    """Templates with their people: a gallery, or the probes.

    Attributes:
        name: ``G1``, ``probe_mixed`` …
        template: Row of each template, once, (G,).
        person: Number of the subject of each, (G,).
    """

    name: str
    template: Integers
    person: Integers


@dataclass(frozen=True)
class Identification:
    """Who is searched where: both galleries, and the probes, each of whom is in one of them."""

    galleries: tuple[People, ...]
    probes: People


def read_template_images(meta: Path, prefix: str) -> TemplateImages:
    """Read ``*_face_tid_mid.txt`` and ``*_name_5pts_score.txt``, which must name the same images in the same order.

    Raises:
        DataError: If a file is missing, or a line is malformed or names another image; with file and line.
    """
    media_path, points_path = meta / f"{prefix}_face_tid_mid.txt", meta / f"{prefix}_name_5pts_score.txt"
    names, numbers = _named_numbers(media_path, 2, MEDIA_FORM, np.int64)
    also, values = _named_numbers(points_path, 11, POINTS_FORM, np.float64)
    _check_same_images(media_path, names, points_path, also)
    finite = (np.abs(values) <= np.finfo(np.float32).max).all(axis=1)  # of NaN nothing is true
    if not finite.all():
        raise DataError(f"{points_path}:{line_of_row(points_path, int(np.argmin(finite)))}: a number is not finite.")
    ids, rows = np.unique(numbers[:, 0], return_inverse=True)
    grouping = Grouping(rows.astype(np.int64), numbers[:, 1], len(ids))
    points, score = values[:, :10].reshape(-1, 5, 2), values[:, 10].astype(np.float32)
    return TemplateImages(tuple(names), points, score, grouping, ids, media_path, points_path)


def read_template_pairs(meta: Path, prefix: str, images: TemplateImages) -> TemplatePairs:
    """Read ``*_template_pair_label.txt``.

    Raises:
        DataError: If the file is missing, or a line is malformed or names a template without images; with file and
            line.
    """
    path = meta / f"{prefix}_template_pair_label.txt"
    lines = read_integer_lines(path, 3, PAIR_FORM)
    label = lines[:, 2]
    if label.max() > 1:
        row = int(np.argmax(label > 1))
        raise DataError(f"{path}:{line_of_row(path, row)}: the label is {label[row]}, but must be 0 or 1.")
    # A table and no search: millions of pairs look up two templates each.
    table = _table(images, int(lines[:, :2].max()))
    left, right = table[lines[:, 0]], table[lines[:, 1]]
    unknown = (left < 0) | (right < 0)
    if unknown.any():
        row = int(np.argmax(unknown))
        template = lines[row, 0] if left[row] < 0 else lines[row, 1]
        raise DataError(f"{path}:{line_of_row(path, row)}: template {template} has no image in {images.path}.")
    return TemplatePairs(left, right, label == 1)


def _table(images: TemplateImages, largest: int) -> Rows:
    """Row of each template id up to ``largest``, -1 where there is none."""
    table = np.full(largest + 1, -1, np.int32)
    known = (images.template_ids >= 0) & (images.template_ids <= largest)
    table[images.template_ids[known]] = np.flatnonzero(known)
    return table


def read_identification(meta: Path, prefix: str, images: TemplateImages) -> Identification | None:
    """Read both galleries and the probes; None if there is none of the three files.

    Raises:
        DataError: If one of the files is missing, a line is malformed, a template has no image, two subjects or two
            parts to play, or a gallery has no mate among the probes.
    """
    paths = [meta / f"{prefix}_1N_gallery_{name}.csv" for name in GALLERIES[prefix]]
    paths.append(meta / f"{prefix}_1N_probe_mixed.csv")
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise DataError(f"{missing[0]}: is missing, but other lists for 1:N search are there.")
    places: dict[int, tuple[int, Path, int]] = {}
    *galleries, probes = (_read_people(path, images, places) for path in paths)
    for path, gallery in zip(paths, galleries, strict=False):
        if not np.isin(probes.person, gallery.person).any():
            raise DataError(f"{path}: no subject of this gallery is among the probes of {paths[-1]}.")
    return Identification(tuple(galleries), probes)


def _read_people(path: Path, images: TemplateImages, places: dict[int, tuple[int, Path, int]]) -> People:
    """One list; ``places`` remembers subject, file and line of every template so far."""
    subjects: dict[int, int] = {}
    for number, line in _lines(path, skip=1):
        fields = line.split(",")
        if len(fields) < 2 or not all(is_whole(field.strip()) for field in fields[:2]):
            raise DataError(f"{path}:{number}: expected 'template,subject,…', got '{line.strip()}'.")
        template, subject = int(fields[0]), int(fields[1])
        known, where, first = places.setdefault(template, (subject, path, number))
        if known != subject:
            raise DataError(
                f"{path}:{number}: template {template} has subject {subject}, but {known} in {where.name}:{first}."
            )
        if where != path:
            raise DataError(f"{path}:{number}: template {template} is in {where.name}:{first} too.")
        subjects[template] = subject
    if not subjects:
        raise DataError(f"{path}: holds no template.")
    ids = np.fromiter(subjects, np.int64, len(subjects))
    rows = images.rows_of(ids)
    if (rows < 0).any():
        template = int(ids[np.argmax(rows < 0)])
        raise DataError(f"{path}:{places[template][2]}: template {template} has no image in {images.path}.")
    name = path.stem.partition("_1N_")[2].removeprefix("gallery_")
    return People(name, rows, np.fromiter(subjects.values(), np.int64, len(subjects)))


def _named_numbers(path: Path, count: int, form: str, kind: type[np.generic]) -> tuple[list[str], NDArray[Any]]:
    names, rows = [], []
    convert: Callable[[str], Any] = kind if kind is np.int64 else float  # int64 refuses what it cannot hold
    for number, line in _lines(path):
        # From the right, since a name may have blanks.
        fields = line.rsplit(maxsplit=count)
        try:
            names.append(fields[0])
            rows.append([convert(field) for field in fields[1:]])
        except (ValueError, OverflowError):
            rows.append([])
        if len(rows[-1]) != count:
            raise DataError(f"{path}:{number}: expected '{form}', got '{line.strip()}'.")
    if not names:
        raise DataError(f"{path}: holds no image.")
    return names, np.array(rows, kind)


def _check_same_images(first: Path, names: list[str], second: Path, also: list[str]) -> None:
    if names == also:
        return
    for path, here, other, there in ((first, names, second, set(also)), (second, also, first, set(names))):
        alone = next((row for row, name in enumerate(here) if name not in there), None)
        if alone is not None:
            raise DataError(f"{path}:{line_of_row(path, alone)}: image '{here[alone]}' is not in {other}.")
    row = next((row for row, (one, two) in enumerate(zip(names, also, strict=False)) if one != two), len(names))
    raise DataError(f"{second}: names the images of {first} in another order or twice, from image {row + 1} on.")


def _lines(path: Path, skip: int = 0) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with opened_text(path) as file:
            for number, line in enumerate(file, 1):
                if number > skip and line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from None
