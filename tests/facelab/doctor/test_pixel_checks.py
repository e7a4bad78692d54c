"""What pixels, sizes, scores and landmarks say."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.data.alignment.alignment import template
from facelab.data.sources.image_folder import ImageFolder
from facelab.doctor.pixel_checks import (
    find_low_quality,
    find_misaligned,
    find_other_sizes,
    find_swapped_colours,
    find_unreadable,
    shift_of,
)
from facelab.doctor.survey import survey
from facelab.errors import DataError
from facelab.iqa.base import SCORERS, PixelScorer

Pixels = NDArray[np.uint8]
SIDE = 48


def write(path: Path, pixels: Pixels) -> None:
    cv2.imwrite(str(path), pixels[..., ::-1])


def test_each_spoilt_image_is_found(folder: Path, drawn: list[list[Pixels]]) -> None:
    (folder / "p0" / "1.png").write_bytes((folder / "p0" / "1.png").read_bytes()[:200])
    write(folder / "p1" / "2.png", cv2.resize(drawn[1][2], (40, 48)))
    write(folder / "p2" / "3.png", drawn[2][3][..., ::-1])
    source = ImageFolder(folder)
    seen = survey(source, workers=2)
    unreadable = find_unreadable(seen)
    assert [source.name(row) for row in unreadable.rows] == ["p0/1.png"]
    assert "p0/1.png" in unreadable.reasons[0]
    sizes = find_other_sizes(seen)
    assert [source.name(row) for row in sizes.rows] == ["p1/2.png"]
    assert sizes.note == "Most images are 48x48."
    assert [source.name(row) for row in find_swapped_colours(seen).rows] == ["p2/3.png"]
    assert find_misaligned(seen) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_low_quality_is_far_from_most_in_the_direction_of_the_scorer(folder: Path, sign: int) -> None:
    source, scorer = ImageFolder(folder), SCORERS.build("Sharpness", {})
    assert isinstance(scorer, PixelScorer)
    seen = survey(source, scorer, workers=1)
    assert seen.quality is not None
    assert np.isfinite(seen.quality).all()
    scores = np.random.default_rng(0).normal(0, 0.1, len(source)).astype(np.float32)
    scores[[5, 9, 11]] = 2.0 * sign, -1.0 * sign, -2.0 * sign
    card = scorer.card.model_copy(update={"higher_is_better": sign == 1})
    (finding,) = find_low_quality(replace(seen, quality=scores), card)
    assert finding.rows[:2].tolist() == [11, 9]
    assert 5 not in finding.rows


def test_a_set_stored_as_bgr_is_said_to_be_and_kept(folder: Path, drawn: list[list[Pixels]]) -> None:
    for person, photos in enumerate(drawn):
        for photo, pixels in enumerate(photos):
            write(folder / f"p{person}" / f"{photo}.png", pixels[..., ::-1])
    finding = find_swapped_colours(survey(ImageFolder(folder), workers=1))
    assert len(finding.rows) > 30
    assert not len(finding.suspects)
    assert "Most of the set has red and blue swapped" in finding.note


def test_photos_of_all_sizes_are_no_aligned_faces(folder: Path, drawn: list[list[Pixels]]) -> None:
    for person, photos in enumerate(drawn):
        for photo, pixels in enumerate(photos):
            write(folder / f"p{person}" / f"{photo}.png", cv2.resize(pixels, (30 + 5 * person + photo, 40)))
    finding = find_other_sizes(survey(ImageFolder(folder), workers=1))
    assert not len(finding.rows)
    assert finding.note.startswith("The images have 40 sizes")


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of the 1 images can be read, the first: .*a.png"):
        survey(ImageFolder(tmp_path))


def test_misaligned_images_are_those_whose_landmarks_lie_elsewhere(folder: Path) -> None:
    source = ImageFolder(folder)
    usual = template(SIDE)

    def find_points(images: Pixels) -> NDArray[np.floating]:
        """Where the strip's first shade tells: enough to give each person other points."""
        points = np.repeat(usual[None], len(images), axis=0) + np.random.default_rng(0).normal(size=(len(images), 5, 2))
        points[7] += 6  # pixels of 48, which are 14 of 112
        points[8] = np.nan
        points[9] = (points[9] - SIDE / 2) * 1.6 + SIDE / 2
        return points

    alignment, missing = find_misaligned(survey(source, find_points=find_points, workers=1))
    assert sorted(alignment.rows.tolist()) == [7, 9]
    assert missing.rows.tolist() == [8]
    assert "0." in alignment.note


def test_shift_does_not_count_what_a_turned_head_does() -> None:
    usual = template(112)
    turned = usual.copy()
    turned[2] += (9, 0)  # the nose alone
    quarter = (usual - 55.5) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 55.5
    same, nose, turn, point = shift_of(np.stack([usual, turned, quarter, np.full((5, 2), 3.0)]), usual)
    assert same == pytest.approx(0, abs=1e-9)
    assert nose < 4
    assert turn > 20
    assert point > 20
