"""All pairs of images of two people: far more than a list names, of which only the most alike are kept."""

from dataclasses import dataclass

import numpy as np

from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Floats, Integers
from facelab.test_protocol.metrics.score_tiles import Faces, Matrix, tiles

BLOCK = 2048


@dataclass(frozen=True)
class Impostors:
    """The pairs of different people that are most alike.

    Attributes:
        score: Falling, (K,).
        left: Person of one image of each, (K,).
        right: Person of the other image, (K,).
        total: Number of all pairs of different people.
    """

    score: Floats
    left: Integers
    right: Integers
    total: int


def count_impostors(person: Integers) -> int:
    """Number of pairs of images of two different people; images of unknown people (-1) are in none."""
    images = np.unique(person[person >= 0], return_counts=True)[1]
    return int((images.sum() ** 2 - (images**2).sum()) // 2)


def most_alike(vectors: Matrix, person: Integers, count: int, *, block: int = BLOCK) -> Impostors:
    """The ``count`` pairs of images of different people with the highest scores, exactly.

    Memory is that of a tile and of about three times ``count`` pairs, whatever the number of images.

    Args:
        vectors: Of unit length, (N, D).
        person: Number of the person on each image, (N,); images of unknown people (-1) are left out.
        count: How many, at least 1; fewer come if there are fewer.
        block: Images of a side of a tile.

    Raises:
        DataError: If there are not two people, or a value is not finite.
    """
    total = count_impostors(person)
    if not total:
        raise DataError("there are no two images of different people.")
    rows = np.flatnonzero(person >= 0)
    faces = Faces(vectors, person, rows)
    # Tiles take images in the order of their people: each pair is met twice, and once with the lower place first.
    place = np.empty(len(person), np.int64)
    place[rows[np.argsort(person[rows], kind="stable")]] = np.arange(len(rows))
    floor, held = -np.inf, [(np.empty(0), np.empty((0, 2), np.int64))]
    for tile in tiles(faces, faces, block=block):
        high = tile.scores > floor
        if not high.any():
            continue
        high &= place[tile.rows][:, None] < place[tile.columns]
        if tile.mates is not None:
            high &= ~tile.mates
        row, column = np.nonzero(high)
        people = np.stack([person[tile.rows[row]], person[tile.columns[column]]], axis=1)
        held.append((tile.scores[row, column].astype(np.float64), people))
        if sum(len(scores) for scores, _ in held) > 2 * count + block:
            held = [_highest(held, count)]
            floor = held[0][0].min() if len(held[0][0]) == count else floor
    score, people = _highest(held, count)
    order = np.argsort(-score, kind="stable")
    left, right = people[order].T
    return Impostors(score[order], left, right, total)


def _highest(held: list[tuple[Floats, Integers]], count: int) -> tuple[Floats, Integers]:
    score, people = (np.concatenate([part[number] for part in held]) for number in (0, 1))
    if len(score) <= count:
        return score, people
    kept = np.argpartition(score, -count)[-count:]
    return score[kept], people[kept]
