"""Choosing images of a list, folder or archive by person, and writing the choice as a new list."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.formats.files import is_archive
from facelab.data.formats.people import person_filter, read_ids
from facelab.data.formats.text_list import one_form, separator_of, split_fields
from facelab.data.formats.writing import written_files
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import open_list
from facelab.errors import ConfigError, DataError, in_range

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """Images by name, without looking at any.

    Attributes:
        where: Names the list, folder or archive in messages.
        names: Path of each image below its root.
        labels: Class of each image, int64, (N,).
    """

    where: str
    names: Sequence[bytes]
    labels: Labels

    def name(self, row: int) -> str:
        """Path of an image below its root."""
        return self.names[row].decode("utf-8", "surrogateescape")

    def person(self, row: int) -> str:
        """The folder that an image lies in.

        Raises:
            DataError: If it lies in none.
        """
        person = posixpath.basename(posixpath.dirname(self.name(row)))
        if not person:
            raise DataError(f"{self.where}: '{self.name(row)}' lies in no folder, so nobody knows the person's name.")
        return person


def read_entries(path: Path) -> Entries:
    """The images that a training list, a folder of people or an archive of people names.

    Raises:
        DataError: If it is none of them, or holds no image.
    """
    if path.is_dir() or is_archive(path):
        folder = ImageFolder(path)
        return Entries(str(path), folder.names, folder.labels)
    listed = open_list(path)
    return Entries(str(path), listed, listed.labels)


def rows_of_people(entries: Entries, ids: Path) -> Rows:
    """Images of the people in a file with one name a line.

    Raises:
        DataError: If the file names somebody who has no image.
    """
    wanted = person_filter(ids, None)
    rows = [row for row in range(len(entries.names)) if wanted(entries.person(row))]
    wanted.refuse_unmet(entries.where)
    return np.array(rows, np.int64)


def rows_of_list(entries: Entries, kept: Path) -> Rows:
    """Images that a training list names, in their own order.

    Labels of the list count only where a path occurs several times: they may be numbered in another way.

    Raises:
        DataError: If the list is missing or damaged, or names an image that there is not; the message gives its line.
    """
    listed = open_list(kept)
    places: dict[bytes, list[int]] = {}
    for place in range(len(listed)):
        places.setdefault(_plain_path(listed[place]), []).append(place)
    found: dict[bytes, list[int]] = {}
    for row, name in enumerate(entries.names):
        if (plain := _plain_path(name)) in places:
            found.setdefault(plain, []).append(row)
    for name, lines in places.items():
        if name not in found:
            raise DataError(
                f"{kept} line {listed.line(lines[0])}: '{name.decode('utf-8', 'replace')}' is not in {entries.where}."
            )
    rows = [
        row
        for name, candidates in found.items()
        for row in candidates
        if len(candidates) == 1 or int(entries.labels[row]) in {int(listed.labels[place]) for place in places[name]}
    ]
    return np.sort(np.array(rows, np.int64))


def _plain_path(name: bytes) -> bytes:
    return name.removeprefix(b"./")


def rows_of_large_classes(entries: Entries, min_images: int) -> Rows:
    """Images of the classes that have at least ``min_images``.

    Raises:
        ConfigError: If ``min_images`` is below 1.
        DataError: If no class has enough images.
    """
    in_range("min-images", min_images, 1, float("inf"))
    known, labels, counts = np.unique(entries.labels, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[labels] >= min_images)
    if not len(rows):
        raise DataError(f"{entries.where}: none of the {len(known)} classes has {min_images} images.")
    return rows


def rows_without(entries: Entries, people: frozenset[str]) -> tuple[Rows, frozenset[str]]:
    """Images of everybody but some people.

    Args:
        entries: The images.
        people: Names as `plain_name` gives them.

    Returns:
        The rows that stay, and which of ``people`` were met.

    Raises:
        DataError: If nobody is left.
    """
    rows, met = [], set()
    for row in range(len(entries.names)):
        person = plain_name(entries.person(row))
        if person in people:
            met.add(person)
        else:
            rows.append(row)
    if not rows:
        raise DataError(f"{entries.where}: nobody is left.")
    return np.array(rows, np.int64), frozenset(met)


def rows_shallow(entries: Entries, per_id: int, seed: int) -> Rows:
    """``per_id`` random images of each class; classes with fewer are left out.

    Raises:
        ConfigError: If ``per_id`` is below 1.
        DataError: If no class has enough images.
    """
    if per_id < 1:
        raise ConfigError(f"per-id is {per_id}, but must be at least 1.")
    known, labels, counts = np.unique(entries.labels, return_inverse=True, return_counts=True)
    # One sort by class and then by a random number: the first of each class are a random choice of its images.
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    starts = np.cumsum(counts) - counts
    place = np.arange(len(labels)) - starts[labels[shuffled]]
    rows = np.sort(shuffled[(place < per_id) & (counts[labels[shuffled]] >= per_id)])
    if not len(rows):
        raise DataError(f"{entries.where}: none of the {len(known)} classes has {per_id} images.")
    return rows


def write_list(target: Path, entries: Entries, rows: Rows) -> int:
    """Write ``path label`` lines, classes numbered anew from 0 in the order of their labels.

    Returns:
        Number of classes.

    Raises:
        DataError: If a path cannot stand in a list, the target exists, or the disk is full.
    """
    known, labels = np.unique(entries.labels[rows], return_inverse=True)
    with written_files(target) as (part,), part.open("wb") as file:
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            name = entries.names[row]
            # Whoever reads the list takes blanks off both ends of a line.
            if b"\n" in name or name != name.strip():
                raise DataError(f"{entries.where}: {entries.name(row)!r} cannot stand in a list; rename the file.")
            file.write(b"%s %d\n" % (name, label))
    return len(known)


def plain_name(person: str) -> str:
    """A name as two lists are compared: case, Unicode's form, spaces, hyphens and underscores do not count."""
    # Twice: folding the case of a composed letter may take it apart again.
    return one_form(one_form(person).casefold()).replace(" ", "_").replace("-", "_")


def people_of_test_list(path: Path) -> frozenset[str]:
    """Everybody whom a test list names, as `plain_name`.

    A line is a pair of LFW's pairs.txt (``name 1 2``, ``name 1 other 2``), a person of its people.txt (``name 4``), or
    names images with their folders (``Name/image.jpg``, any number on a line), or is one name. Lines of numbers alone
    are passed over.

    Raises:
        DataError: If the file is missing, is not text, or names nobody.
    """
    people = {plain_name(person) for line in read_ids(path) for person in _people_of_line(line)}
    if not people:
        raise DataError(f"{path}: names nobody.")
    return frozenset(people)


def _people_of_line(line: str) -> list[str]:
    separator = separator_of(line) if "\t" in line or "/" in line else None  # a comma may belong to a bare name
    fields = split_fields(line, separator, "a test list")
    folders = [posixpath.basename(posixpath.dirname(field)) for field in fields if "/" in field]
    if folders:
        return folders
    numbers = [field.strip().isdecimal() for field in fields]
    if all(numbers):
        return []
    if numbers in ([False, True], [False, True, True], [False, True, False, True]):
        return [field for field, number in zip(fields, numbers, strict=True) if not number]
    return [line]
