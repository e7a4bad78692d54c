"""Files of landmarks: each form is read, each mistake is named with its place."""

import json
from pathlib import Path

import numpy as np
import pytest

from facelab.data.alignment.landmarks import read_landmarks
from facelab.errors import DataError

FIVE = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
POINTS = np.array(FIVE.split(), float).reshape(5, 2)


def written(folder: Path, text: str, name: str = "points.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        f"a/1.jpg {FIVE}\nb.jpg {FIVE}\n",
        f"./a/1.jpg   {FIVE}   \n\n  b.jpg {FIVE}",
        "a/1.jpg\t{0}\nb.jpg\t{0}".format(FIVE.replace(" ", "\t")),
        f"a/1.jpg {FIVE} 0.998\nb.jpg {FIVE} 0.5\r\n",
    ],
)
def test_lines(tmp_path: Path, text: str) -> None:
    found = read_landmarks(written(tmp_path, text))
    assert found.names == ("a/1.jpg", "b.jpg")
    assert found.points.shape == (2, 5, 2)
    assert found.points[1] == pytest.approx(POINTS)


def test_a_path_with_blanks_before_a_tab(tmp_path: Path) -> None:
    assert read_landmarks(written(tmp_path, f"my photos/a 1.jpg\t{FIVE}")).names == ("my photos/a 1.jpg",)


@pytest.mark.parametrize("points", [POINTS.tolist(), POINTS.ravel().tolist()])
@pytest.mark.parametrize("as_list", [False, True])
def test_json(tmp_path: Path, points: list[object], as_list: bool) -> None:
    tree = [{"path": "a.jpg", "landmarks": points, "score": 1}] if as_list else {"a.jpg": points}
    found = read_landmarks(written(tmp_path, json.dumps(tree), "points.json"))
    assert found.names == ("a.jpg",)
    assert found.points[0] == pytest.approx(POINTS)


@pytest.mark.parametrize(("count", "mouth"), [(68, [48, 54]), (106, [84, 90]), (25, [10, 11])])
def test_larger_sets_become_five(tmp_path: Path, count: int, mouth: list[int]) -> None:
    points = np.random.default_rng(0).uniform(0, 100, (count, 2)).round(3)
    line = "a.jpg " + " ".join(map(str, points.ravel()))
    assert read_landmarks(written(tmp_path, line)).points[0, 3:] == pytest.approx(points[mouth])


def test_numbers_that_are_not_finite_are_left_to_the_alignment(tmp_path: Path) -> None:
    assert np.isnan(read_landmarks(written(tmp_path, "a.jpg " + "nan " * 10)).points).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "points.txt: holds no landmarks"),
        (
            f"a.jpg {FIVE}\nb.jpg 1 2 3",
            "points.txt, line 2: expected x and y of 5, 25, 68 or 106 points, got 3 numbers",
        ),
        ("a.jpg", "line 1: expected x and y .* got 0 numbers"),
        (f"a.jpg {FIVE[:-4]} x", "line 1: landmarks must be numbers .*'x'"),
        (f"a.jpg {FIVE}\n\n./a.jpg {FIVE}", "line 3: './a.jpg' has landmarks already at .*line 1; one face"),
        (f"../a.jpg {FIVE}", "line 1: '../a.jpg' is not a path below the folder"),
        (f"/etc/a.jpg {FIVE}", "line 1: '/etc/a.jpg' is not a path below the folder"),
    ],
)
def test_bad_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_landmarks(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "points.json: is not landmarks in JSON"),
        ("3", "points.json: must hold {path: points} or"),
        ('[{"path": "a.jpg"}]', "points.json: must hold {path: points} or"),
        ('{"a.jpg": 3}', "'a.jpg': landmarks must be a list, got int"),
        ('{"a.jpg": [1, 2]}', "'a.jpg': expected x and y .* got 2 numbers"),
        ('{"a.jpg": [{}]}', "'a.jpg': landmarks must be numbers"),
        ('{"a.jpg": [], "a.jpg": []}', "points.json: 'a.jpg' stands twice"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_landmarks(written(tmp_path, text, "points.json"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.txt: there is no such file"):
        read_landmarks(tmp_path / "none.txt")
