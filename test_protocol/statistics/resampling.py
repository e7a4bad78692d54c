"""Who is drawn in a bootstrap, and how often each trial then counts.

The trials of a face benchmark are not independent: one hard person spoils all pairs that he is in. So people are
drawn, with replacement, not pairs. In a draw that holds person a ``w_a`` times,

* a different pair of a and b counts ``w_a * w_b`` times: each copy of a meets each copy of b;
* a same pair of a counts ``w_a`` times: each copy of a brings his own pairs. The copies of one person are not paired
  with each other, so ``w_a * (w_a - 1) / 2`` further pairs do not appear: as different pairs they would be false
  (there is one person), and as same pairs they would give a person who is drawn three times the weight of nine.

This is the vertex bootstrap of Snijders and Borgatti (Connections 22, 1999), studied for face verification by
Fogliato, Patil and Perona (IJCV 2024, arXiv:2306.01198), and the product weights of Owen and Eckles (Annals of Applied
Statistics 6, 2012, arXiv:1106.2125). There is no exact bootstrap for pairs of people (McCullagh, Bernoulli 6, 2000).
This one errs on the safe side, its intervals are rather too wide: up to the root of 3 for different pairs whose scores
owe nothing to their people. The subset bootstrap of Bolle, Ratha and Pankanti (CVIU 93, 2004), which draws only one
of the two people, errs on the other side (Li, Tang, Li and Zhang, CAIP 2009).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.metrics.metrics import Floats, Integers

ALWAYS = 0  # the unit that every draw holds once
BLOCK_DRAWS = 64
BLOCK_NUMBERS = 1 << 24  # multiplicities held at once: 128 MB


@dataclass(frozen=True)
class Units:
    """What is drawn, and what each trial takes its weight from.

    A trial counts the product of the multiplicities of its two units. Unit 0 always has the multiplicity 1.

    Attributes:
        first: A unit of each trial, (N,).
        second: The other one, 0 where there is no other, (N,).
        count: Number of units to draw from, numbered from 1.
        kind: What they are: ``people``, or ``pairs`` or ``probes`` where people are unknown.
    """

    first: Integers
    second: Integers
    count: int
    kind: str

    def describe(self) -> str:
        """For a note: ``by identity, 3,531 people``, or ``by pair, people unknown``."""
        if self.kind == "people":
            return f"by identity, {self.count:,} people"
        return f"by {self.kind.removesuffix('s')}, people unknown"


def units_of_pairs(trials: Mapping[str, NDArray[Any]]) -> Units:
    """People of verification trials; each pair alone if a person is unknown (-1).

    Raises:
        DataError: If a same pair has two people, or a different pair one.
    """
    same, left, right = trials["same"], trials["left"], trials["right"]
    known = (left >= 0) & (right >= 0)
    wrong = known & ((left == right) != same)
    if wrong.any():
        row = int(np.argmax(wrong))
        said, of = ("same", "two people") if same[row] else ("different", "one person")
        raise DataError(f"trial {row} (from 0) is a {said} pair of {of}, {left[row]} and {right[row]}.")
    if not known.all():
        return _each_alone(len(same), "pairs")
    people = np.union1d(np.unique(left), np.unique(right))
    first, second = (np.searchsorted(people, side) + 1 for side in (left, right))
    return Units(first, np.where(same, ALWAYS, second), len(people), "people")


def units_of_probes(trials: Mapping[str, NDArray[Any]]) -> Units:
    """People of the probes of identification trials; each probe alone if a person is unknown (-1)."""
    person = trials["person"]
    if (person < 0).any():
        return _each_alone(len(person), "probes")
    people, place = np.unique(person, return_inverse=True)
    return Units(place.reshape(-1) + 1, np.zeros(len(person), np.int64), len(people), "people")


def _each_alone(count: int, kind: str) -> Units:
    return Units(np.zeros(count, np.int64), np.arange(1, count + 1), count, kind)


def multiplicities(count: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each unit was drawn, in blocks of draws, (1 + count, draws of the block); row 0 is all ones.

    The numbers depend on ``count`` and ``seed`` alone, so that two models on the same trials get the same draws.
    """
    generator = np.random.default_rng(seed)
    width = max(1, min(BLOCK_DRAWS, BLOCK_NUMBERS // count))
    for start in range(0, draws, width):
        block = np.ones((1 + count, min(width, draws - start)))
        for column in block.T:
            column[1:] = np.bincount(generator.integers(count, size=count), minlength=count)
        yield block
