"""The nine parts of an aligned face that tests of occlusion cover."""

from typing import Literal

Region = Literal[
    "left_eye", "right_eye", "both_eyes", "nose", "mouth", "lower_face", "upper_face", "left_face", "right_face"
]
Box = tuple[int, int, int, int]

# The boxes of FROM (Qiu et al., TPAMI 2022, arXiv:2108.09468), which its authors publish for crops of 112 x 96; there
# the face lies 8 pixels further left than in crops of 112 x 112.
REGIONS: dict[Region, Box] = {
    "left_eye": (18, 30, 58, 70),
    "right_eye": (58, 30, 98, 70),
    "both_eyes": (18, 30, 98, 70),
    "nose": (42, 48, 70, 86),
    "mouth": (33, 82, 83, 107),
    "lower_face": (16, 60, 100, 110),
    "upper_face": (16, 8, 100, 72),
    "left_face": (16, 8, 58, 100),
    "right_face": (58, 8, 100, 100),
}
"""Left, top, right and bottom edge of each, in pixels of a face that is aligned to 112 x 112; left as one sees it."""


def region_in(region: Region, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a region in an aligned face of ``height`` x ``width`` pixels.

    A narrower crop lacks the same number of columns on both sides, as 112 x 96 does beside 112 x 112.
    """
    left, top, right, bottom = REGIONS[region]
    scale = height / 112
    across = [min(max(round((edge - 56) * scale + width / 2), 0), width) for edge in (left, right)]
    return slice(round(top * scale), round(bottom * scale)), slice(*across)
