"""Which images TinyFace's test has, and who is on them: from its ``.mat`` lists, or from folders and file names."""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from facelab.data.formats.open_files import open_files
from facelab.data.formats.text_list import is_whole
from facelab.errors import DataError
from facelab.test_protocol.lists.matlab import texts, whole_numbers
from facelab.test_protocol.metrics.metrics import Integers
from facelab.test_protocol.metrics.score_tiles import NOBODY

PROBE, MATCH, DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
LISTS = {PROBE: ("probe_img_ID_pairs.mat", "probe"), MATCH: ("gallery_match_img_ID_pairs.mat", "gallery")}
ALIGNED, TESTING_SET = "tinyface_aligned_112", Path("tinyface") / "Testing_Set"


@dataclass(frozen=True)
class Listed:
    """Some images and the number of the person on each.

    Attributes:
        images: Names below the root.
        person: int64, (N,); -1 for a distractor.
    """

    images: tuple[str, ...]
    person: Integers

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


@dataclass(frozen=True)
class TinyFaceLists:
    """The test's images.

    Attributes:
        root: Folder or archive that the names are below.
        probe: Low-resolution faces to be found.
        match: Gallery images of the people among the probes.
        distractor: Gallery images of others.
        source: Where the people come from.
    """

    root: Path
    probe: Listed
    match: Listed
    distractor: Listed
    source: Literal["lists", "file names"]


def tinyface_lists(root: Path, lists: Path | None = None) -> TinyFaceLists:
    """Find the images of the test.

    Args:
        root: A folder or ``.tar`` archive with the folders ``Probe``, ``Gallery_Match`` and ``Gallery_Distractor``, or
            a folder that has them in ``tinyface_aligned_112``, ``Testing_Set`` or ``tinyface/Testing_Set`` (the first
            of these that is there).
        lists: Folder with the two ``.mat`` lists. By default they are looked for in the folder of the images, and
            beside it as ``tinyface/Testing_Set``; without them the people are the numbers before the first underscore
            of the file names.

    Raises:
        DataError: If a folder, list or image is missing, or a file name has no number.
    """
    base = _base(root)
    folders = _folders(base)
    found = _lists(root, base) if lists is None else lists
    named = {
        kind: _named(base, folders[kind]) if found is None else _listed(found, base, folders[kind], kind)
        for kind in LISTS
    }
    distractors = tuple(folders[DISTRACTOR])
    nobody = np.full(len(distractors), NOBODY, np.int64)
    source: Literal["lists", "file names"] = "file names" if found is None else "lists"
    return TinyFaceLists(base, named[PROBE], named[MATCH], Listed(distractors, nobody), source)


def _base(root: Path) -> Path:
    places = (root, root / ALIGNED, root / TESTING_SET.name, root / TESTING_SET)
    return next((place for place in places if (place / PROBE).is_dir()), root)


def _folders(base: Path) -> dict[str, list[str]]:
    """Image names by folder."""
    found: dict[str, list[str]] = {}
    for folder, names in open_files(base).folders():
        kind = posixpath.basename(folder)
        if kind in found:
            raise DataError(f"{base}: has more than one folder '{kind}'.")
        found[kind] = names
    for kind in (PROBE, MATCH, DISTRACTOR):
        if not found.get(kind):
            raise DataError(f"{base}: TinyFace needs images in the folder '{kind}', which is missing or empty.")
    return found


def _lists(root: Path, base: Path) -> Path | None:
    places = (base, root, root / TESTING_SET.name, root / TESTING_SET, base.parent / TESTING_SET)
    return next((place for place in places if all((place / file).is_file() for file, _ in LISTS.values())), None)


def _listed(lists: Path, base: Path, images: Sequence[str], kind: str) -> Listed:
    """The images of a ``.mat`` list, found by their stems: aligned copies may have another ending."""
    file, prefix = LISTS[kind]
    path = lists / file
    names, person = texts(path, f"{prefix}_set"), whole_numbers(path, f"{prefix}_ids")
    if len(names) != len(person) or not names:
        raise DataError(f"{path}: {len(names)} names and {len(person)} people do not make a list.")
    by_stem = dict(_stems(base, images))
    missing = [name for name in names if _stem(name) not in by_stem]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(names)} images are missing in {base / kind}, the first is '{missing[0]}'."
        )
    return Listed(tuple(by_stem[_stem(name)] for name in names), person)


def _stems(base: Path, images: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for image in images:
        stem = _stem(image)
        if stem in seen:
            raise DataError(f"{base}: '{seen[stem]}' and '{image}' are both the image '{stem}'; keep one.")
        seen[stem] = image
        yield stem, image


def _stem(image: str) -> str:
    return posixpath.splitext(posixpath.basename(image))[0]


def _named(base: Path, images: Sequence[str]) -> Listed:
    people = [_stem(image).partition("_")[0] for image in images]
    for image, person in zip(images, people, strict=True):
        if not is_whole(person):
            raise DataError(f"{base / image}: the name must begin with the person's number, as in '12_1.jpg'.")
    return Listed(tuple(images), np.array(people, np.int64))
