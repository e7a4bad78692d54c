"""The hardest errors, by hand."""

import numpy as np

from facelab.test_protocol.base import Mistake
from facelab.test_protocol.report.mistakes import SHOWN, worst_mistakes, worst_of


def test_worst_first_of_each_kind() -> None:
    scores = np.array([0.9, 0.6, 0.2, 0.8, 0.1, 0.3])
    same = np.array([False, False, True, True, True, False])
    threshold = np.array([0.5, 0.7, 0.5, 0.85, 0.5, 0.5])  # pair 1 is below, pair 3 not at that of its fold
    pairs = np.arange(12).reshape(6, 2)
    assert worst_mistakes(scores, same, threshold, pairs) == (
        Mistake("false match", 0, 1, 0.9),
        Mistake("false non-match", 8, 9, 0.1),
        Mistake("false non-match", 4, 5, 0.2),
        Mistake("false non-match", 6, 7, 0.8),
    )


def test_at_most_ten_of_each_kind() -> None:
    scores = np.linspace(0, 1, 50)
    found = worst_mistakes(scores, np.zeros(50, bool), np.zeros(50), np.arange(100).reshape(50, 2))
    assert [mistake.score for mistake in found] == scores[::-1][:SHOWN].tolist()
    assert worst_of([*reversed(found), Mistake("false match", 0, 1, 2.0)])[:2] == (
        Mistake("false match", 0, 1, 2.0),
        found[0],
    )
