"""The regions lie where an aligned face has them, in crops of any size."""

import numpy as np
import pytest

from facelab.data.alignment.alignment import template
from facelab.data.alignment.regions import REGIONS, region_in

LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = range(5)
HIDDEN = {
    "left_eye": {LEFT_EYE},
    "right_eye": {RIGHT_EYE},
    "both_eyes": {LEFT_EYE, RIGHT_EYE},
    "nose": {NOSE},
    "mouth": {LEFT_MOUTH, RIGHT_MOUTH},
    "lower_face": {NOSE, LEFT_MOUTH, RIGHT_MOUTH},
    "upper_face": {LEFT_EYE, RIGHT_EYE},
    "left_face": {LEFT_EYE, LEFT_MOUTH, NOSE},
    "right_face": {RIGHT_EYE, RIGHT_MOUTH},
}


@pytest.mark.parametrize("size", [56, 112, 224])
@pytest.mark.parametrize("region", REGIONS)
def test_they_hide_the_points_of_the_template_that_they_name(region: str, size: int) -> None:
    covered = np.zeros((size, size), bool)
    covered[region_in(region, size, size)] = True  # type: ignore[arg-type]
    columns, rows = np.rint((template(112) + 0.5) * size / 112 - 0.5).astype(int).T
    assert set(np.flatnonzero(covered[rows, columns])) == HIDDEN[region]


def test_a_narrower_crop_has_the_published_boxes() -> None:
    rows, columns = region_in("mouth", 112, 96)
    assert (columns.start, rows.start, columns.stop, rows.stop) == (25, 82, 75, 107)


def test_a_crop_of_the_middle_clips_them() -> None:
    assert region_in("left_face", 112, 60) == (slice(8, 100), slice(0, 32))
