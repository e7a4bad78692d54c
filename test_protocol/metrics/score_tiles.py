"""Scores of all probes against all gallery entries, a tile at a time: the whole P x G matrix is never kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics.metrics import Booleans, Integers

Matrix = NDArray[np.floating[Any]]
BLOCK = 4096
NOBODY = -1


@dataclass(frozen=True)
class Tile:
    """Scores of some probes against some gallery entries; ``scores`` lasts until the next tile and may be changed.

    Attributes:
        rows: Which probes, (R,).
        columns: Which gallery entries, (C,).
        scores: Dot products, (R, C).
        mates: Where both are of one person, (R, C); None if that is nowhere.
    """

    rows: Integers
    columns: Integers
    scores: Matrix
    mates: Booleans | None


@dataclass(frozen=True)
class Faces:
    """Vectors with the number of the person that each shows.

    Attributes:
        vectors: As they are to be compared, usually of unit length, float32 or float64, (N, D).
        person: int64, (N,); `NOBODY` for a distractor, which is a mate of none.
        rows: Which of them take part, so that none has to be copied; all if None.
    """

    vectors: Matrix
    person: Integers
    rows: Integers | None = None

    @classmethod
    def strangers(cls, vectors: Matrix, rows: Integers | None = None) -> "Faces":
        """Vectors of which none has a mate."""
        return cls(vectors, np.full(len(vectors), NOBODY, np.int64), rows)

    def __len__(self) -> int:
        """Number of vectors that take part."""
        return len(self.vectors) if self.rows is None else len(self.rows)

    def blocks(self, block: int) -> list[Integers]:
        """Rows of the vectors that take part, in the order of their people, in blocks."""
        rows = np.arange(len(self.vectors)) if self.rows is None else self.rows
        order = rows[np.argsort(self.person[rows], kind="stable")]
        return [order[start : start + block] for start in range(0, len(order), block)]

    def check(self, what: str) -> None:
        """Refuse what cannot be searched.

        Raises:
            DataError: If there is nothing, the shapes do not fit, or a value is not finite.
        """
        if self.vectors.ndim != 2 or self.person.shape != self.vectors.shape[:1]:
            shapes = f"got vectors of shape {self.vectors.shape} and people of shape {self.person.shape}"
            raise DataError(f"the {what} needs one vector and one person for each entry, {shapes}.")
        if not len(self):
            raise DataError(f"the {what} is empty.")
        for start in range(0, len(self.vectors), BLOCK):
            finite = np.isfinite(self.vectors[start : start + BLOCK]).all(axis=1)
            if not finite.all():
                raise DataError(f"the vector of {what} entry {start + int(np.argmin(finite))} (from 0) is not finite.")


def tiles(probe: Faces, gallery: Faces, *, block: int = BLOCK, mates_only: bool = False) -> Iterator[Tile]:
    """Every score once, each as the same tile in every call with the same arguments.

    Both sides are taken in the order of their people, so that mates meet in few tiles.

    Args:
        probe: P vectors.
        gallery: G vectors.
        block: Probes and gallery entries of a tile, at most.
        mates_only: Pass over the tiles where no probe meets a mate.

    Raises:
        ConfigError: If ``block`` is not positive.
        DataError: If a side is empty, its shapes do not fit, a value is not finite, or the sides differ in D.
    """
    if block < 1:
        raise ConfigError(f"block is {block}, but a tile needs at least one entry.")
    probe.check("probe set")
    gallery.check("gallery")
    if probe.vectors.shape[1] != gallery.vectors.shape[1]:
        sizes = f"{probe.vectors.shape[1]} and {gallery.vectors.shape[1]} numbers"
        raise DataError(f"probes and gallery cannot be compared: their vectors have {sizes}.")
    return _tiles(probe, gallery, block, mates_only)


def _tiles(probe: Faces, gallery: Faces, block: int, mates_only: bool) -> Iterator[Tile]:
    # One array serves all tiles, so that none is allocated anew; whoever keeps scores beyond its tile copies them.
    double = np.float64 in (probe.vectors.dtype, gallery.vectors.dtype)
    dtype = np.dtype(np.float64 if double else np.float32)
    scratch = np.empty(min(block, len(probe)) * min(block, len(gallery)), dtype)
    rows_of = probe.blocks(block)
    for columns in gallery.blocks(block):
        entries: Matrix | None = None  # copied for the first tile that is wanted: with ``mates_only`` few are
        for rows in rows_of:
            mates = _mates(probe.person[rows], gallery.person[columns])
            if mates is None and mates_only:
                continue
            if entries is None:
                entries = gallery.vectors[columns].astype(dtype, copy=False)
            scores = scratch[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            multiply(probe.vectors[rows].astype(dtype, copy=False), entries, scores)
            yield Tile(rows, columns, scores, mates)


def multiply(left: Matrix, right: Matrix, out: Matrix) -> None:
    """Dot products of all rows of two writable arrays, (R, D) and (C, D), into ``out``, (R, C)."""
    # torch and not NumPy: it multiplies on as many threads as torch is set to, and into memory that is there.
    torch.mm(torch.from_numpy(left), torch.from_numpy(right).T, out=torch.from_numpy(out))


def _mates(rows: Integers, columns: Integers) -> Booleans | None:
    """Where two ascending lists of people are equal and somebody, or None if nowhere."""
    # Most tiles hold no mates: comparing the people is cheap beside a (R, C) mask of False.
    if not len(np.intersect1d(rows[rows > NOBODY], columns[columns > NOBODY])):
        return None
    return np.asarray((rows[:, None] == columns) & (rows > NOBODY)[:, None])
