"""Label errors, planted among vectors of which everything is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.doctor.findings import Finding
from facelab.doctor.identities import Identities, find_label_errors, measure_scale
from facelab.doctor.intrinsic_quality import IntrinsicQuality, intrinsic_quality, neighbour_share
from facelab.doctor.neighbours import nearest
from facelab.doctor.overlap import find_overlap

PEOPLE, PHOTOS, WIDTH = 20, 6, 64
Vectors = NDArray[np.float32]


def photos(people: list[int], seed: int = 0) -> Vectors:
    """A photo of each person, of unit length: cosine about 0.7 within a person, 0 between two."""
    means = np.random.default_rng(99).normal(size=(200, WIDTH))
    noise = np.random.default_rng(seed).normal(size=(len(people), WIDTH))
    vectors = means[people] + 0.65 * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def found(people: list[int], labels: list[int]) -> dict[str, Finding]:
    vectors = photos(people)
    identities = Identities(vectors, np.array(labels), nearest(vectors))
    scale = measure_scale(identities)
    assert scale is not None
    assert scale.is_telling
    return {finding.kind: finding for finding in find_label_errors(identities, scale)}


CLEAN = np.repeat(np.arange(PEOPLE), PHOTOS).tolist()


def test_a_clean_set_has_no_findings() -> None:
    assert {kind: len(finding.rows) for kind, finding in found(CLEAN, CLEAN).items()} == dict.fromkeys(
        ("wrong label", "several people", "two labels", "outlier", "unlike pair"), 0
    )


def test_a_wrong_label_is_shown_with_the_right_one() -> None:
    labels = CLEAN.copy()
    labels[7] = 15
    result = found(CLEAN, labels)
    assert result["wrong label"].rows.tolist() == [7]
    assert labels[result["wrong label"].beside[0]] == 1
    assert not len(result["outlier"].rows)


def test_several_people_leave_the_largest_group() -> None:
    labels = [2 if label == 3 else label for label in CLEAN]
    people = [*CLEAN, 2, 2]
    result = found(people, [*labels, 2, 2])
    assert sorted(result["several people"].rows.tolist()) == list(range(3 * PHOTOS, 4 * PHOTOS))
    assert {people[row] for row in result["several people"].beside.tolist()} == {2}


def test_one_person_under_two_labels_loses_the_smaller_one() -> None:
    labels = [PEOPLE if row in (0, 1) else label for row, label in enumerate(CLEAN)]
    result = found(CLEAN, labels)
    assert result["two labels"].suspects.tolist() == [0, 1]
    assert len(result["two labels"].rows) == 1
    assert labels[result["two labels"].beside[0]] == 0


def test_a_stranger_is_an_outlier_and_of_two_images_nobody_knows() -> None:
    people, labels = [*CLEAN, 150, 160, 161], [*CLEAN, 4, PEOPLE, PEOPLE]
    result = found(people, labels)
    assert result["outlier"].rows.tolist() == [len(CLEAN)]
    assert labels[result["outlier"].beside[0]] == 4
    assert result["unlike pair"].rows.tolist() == [len(CLEAN) + 1]
    assert result["unlike pair"].suspects.tolist() == [len(CLEAN) + 1, len(CLEAN) + 2]


def test_spoilt_images_are_no_witnesses() -> None:
    labels = CLEAN.copy()
    labels[7] = 15
    vectors = photos(CLEAN)
    counted = np.arange(len(labels)) != 7
    identities = Identities(vectors, np.array(labels), nearest(vectors), counted)
    scale = measure_scale(identities)
    assert scale is not None
    assert all(not len(finding.rows) for finding in find_label_errors(identities, scale))
    assert identities.counts[15] == PHOTOS


def test_a_random_model_tells_nothing() -> None:
    vectors = photos(list(range(len(CLEAN))))
    scale = measure_scale(Identities(vectors, np.array(CLEAN), nearest(vectors)))
    assert scale is not None
    assert not scale.is_telling


def test_without_two_images_of_one_or_two_labels_there_is_no_scale() -> None:
    vectors = photos([0, 1, 2])
    assert measure_scale(Identities(vectors, np.array([0, 1, 2]), nearest(vectors))) is None
    assert measure_scale(Identities(vectors, np.array([0, 0, 0]), nearest(vectors))) is None


def test_people_of_a_test_set_are_found() -> None:
    vectors = photos(CLEAN)
    identities = Identities(vectors, np.array(CLEAN), nearest(vectors))
    scale = measure_scale(identities)
    assert scale is not None
    test = photos([170, 3, 171], seed=5)
    images: object = "images"
    finding = find_overlap(identities, scale, ("LFW", images), test, np.array([4, 5, 6]), "cpu")  # type: ignore[arg-type]
    assert finding.beside.tolist() == [5]
    assert finding.suspects.tolist() == list(range(3 * PHOTOS, 4 * PHOTOS))
    assert finding.beside_in == ("LFW", images)


def test_intrinsic_quality_by_hand() -> None:
    assert IntrinsicQuality(0.5, 0.75).value == pytest.approx(0.7)
    # Eight corners of a cube: all axes alike, so the effective rank is 3 of 3.
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32) / np.sqrt(3)
    labels = np.repeat([0, 1], 4)
    quality = intrinsic_quality(corners, labels, nearest(corners, count=3))
    assert quality.richness == pytest.approx(1.0)
    assert quality.consistency == pytest.approx(2 / 3)  # of a corner's three neighbours, two have its x
    line = np.linspace(-1, 1, 8, dtype=np.float32)[:, None] * np.array([1, 0, 0], np.float32)
    assert intrinsic_quality(line, labels, nearest(line, count=3)).richness == 0.0


def test_flipped_labels_lower_intrinsic_quality() -> None:
    vectors, labels = photos(CLEAN), np.array(CLEAN)
    near = nearest(vectors)
    flipped = labels.copy()
    flipped[::5] = (flipped[::5] + 7) % PEOPLE
    clean, worse = (intrinsic_quality(vectors, some, near) for some in (labels, flipped))
    assert clean.consistency > worse.consistency + 0.1
    assert clean.richness == worse.richness
    assert neighbour_share(flipped, near)[::5].mean() < 0.2
