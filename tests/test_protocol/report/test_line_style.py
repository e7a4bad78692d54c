"""A model keeps its colour; lines that lie on each other are all seen."""

import numpy as np
import pytest

from facelab.test_protocol.report.line_style import COLOURS, PLAIN, STROKE, over_each_other, styles_of

X = np.linspace(0, 1, 50)


def test_styles_differ_for_three_times_as_many_models_as_there_are_colours() -> None:
    names = [f"model {number}" for number in range(3 * len(COLOURS))]
    styles = styles_of(names)
    assert list(styles) == names
    assert len(set(styles.values())) == len(names)
    assert styles["model 0"] == PLAIN
    assert styles["model 8"].colour == COLOURS[1]


def gaps(*heights: np.ndarray, x: np.ndarray = X, steps: bool = False) -> list[float]:
    """Length of the gaps of each line, through which those below it show."""
    looks = over_each_other([PLAIN] * len(heights), [(x[: len(y)], y) for y in heights], steps=steps)
    return [look.dash[1] if look.dash else 0.0 for look in looks]


@pytest.mark.parametrize("steps", [False, True])
def test_a_line_on_others_is_dashed_and_the_lowest_is_whole(steps: bool) -> None:
    assert gaps(X, X, 1 - X, X, steps=steps) == [0, STROKE, 0, 2 * STROKE]


def test_lines_that_meet_only_for_a_while_stay_whole() -> None:
    assert gaps(X, 1 - X, np.where(X < 0.9, 0.2, X)) == [0, 0, 0]
    assert gaps(X, np.where(X < 0.5, 0.7, X)) == [0, STROKE]


def test_lines_of_unlike_length_coincide_where_both_are() -> None:
    assert gaps(X, X[:20]) == [0, STROKE]
    assert gaps(X[:0], X) == [0, 0]


def test_the_last_of_very_many_still_has_strokes() -> None:
    assert gaps(*[X] * 30)[-1] == 4 * STROKE
