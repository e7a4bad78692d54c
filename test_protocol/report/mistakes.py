"""The hardest errors of a verification set: which pairs to look at first."""

from collections.abc import Iterable

import numpy as np

from facelab.test_protocol.base import Mistake
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers

SHOWN = 10


def worst_mistakes(scores: Floats, same: Booleans, threshold: Floats, pairs: Integers) -> tuple[Mistake, ...]:
    """The false matches of the highest and the false non-matches of the lowest scores, at most 10 of each.

    Args:
        scores: Similarity of each pair, (P,).
        same: Whether each pair shows one person, (P,).
        threshold: What each pair's score must reach to be accepted, (P,).
        pairs: Rows of images, (P, 2).
    """
    accepted = scores >= threshold
    matches, non_matches = np.flatnonzero(accepted & ~same), np.flatnonzero(~accepted & same)
    matches = matches[np.argsort(-scores[matches], kind="stable")][:SHOWN]
    non_matches = non_matches[np.argsort(scores[non_matches], kind="stable")][:SHOWN]
    return (
        *(Mistake("false match", int(pairs[row, 0]), int(pairs[row, 1]), float(scores[row])) for row in matches),
        *(
            Mistake("false non-match", int(pairs[row, 0]), int(pairs[row, 1]), float(scores[row]))
            for row in non_matches
        ),
    )


def worst_of(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """The worst 10 of each kind."""
    found = list(mistakes)
    matches = sorted((one for one in found if one.kind == "false match"), key=lambda one: -one.score)
    non_matches = sorted((one for one in found if one.kind == "false non-match"), key=lambda one: one.score)
    return (*matches[:SHOWN], *non_matches[:SHOWN])
