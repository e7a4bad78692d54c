import math

import pytest

from facelab.errors import ConfigError, did_you_mean, in_range, one_of


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("Arcface", " Did you mean 'ArcFace'?"),
        ("arcface", " Did you mean 'ArcFace'?"),
        ("marginarc", " Did you mean 'margin'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_suggestion_is_the_nearest_known_name(given: str, answer: str) -> None:
    assert did_you_mean(given, ["ArcFace", "CosFace", "margin", "scale"]) == answer


def test_in_range_returns_the_value() -> None:
    assert in_range("margin", 0.5, 0.0, 1.0) == 0.5


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_in_range_refuses_what_is_outside(value: float) -> None:
    with pytest.raises(ConfigError, match=r"margin is .*, but must lie in \[0, 1\]"):
        in_range("margin", value, 0.0, 1.0)


def test_open_ends_refuse_the_end_itself() -> None:
    with pytest.raises(ConfigError, match=r"must lie in \(0, 1\)"):
        in_range("decay", 1.0, 0.0, 1.0, low_open=True, high_open=True)


def test_one_of_suggests() -> None:
    with pytest.raises(ConfigError, match="boundary is 'liner'. Did you mean 'linear'"):
        one_of("boundary", "liner", ("linear", "none"))
