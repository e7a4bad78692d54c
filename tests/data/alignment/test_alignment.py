"""Alignment: exact on transforms made by hand, equal to the published programs, and plain about bad landmarks."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.alignment.alignment import (
    ARCFACE_112,
    FIVE_POSES_112,
    align,
    five_points,
    nearest_pose,
    refuse_other_order,
    similarity,
    template,
    unlike_faces,
    warp,
)
from facelab.errors import ConfigError, DataError

SMALL = Path(__file__).resolve().parents[2] / "golden" / "alignment"


def rotation(degrees: float, scale: float = 1.0) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 0.5), (180, 3), (-95, 0.1)])
def test_similarity_is_recovered(degrees: float, scale: float) -> None:
    expected = np.hstack([rotation(degrees, scale), [[5.0], [-7.0]]])
    source = (ARCFACE_112 - expected[:, 2]) @ np.linalg.inv(expected[:, :2]).T
    np.testing.assert_allclose(similarity(source, ARCFACE_112), expected, atol=1e-9)


def test_many_faces_at_once() -> None:
    faces = np.random.default_rng(0).normal(100, 30, (3, 4, 5, 2))
    together = similarity(faces, ARCFACE_112)
    assert together.shape == (3, 4, 2, 3)
    np.testing.assert_allclose(together[2, 1], similarity(faces[2, 1], ARCFACE_112))


def test_no_similarity_is_better() -> None:
    """At a least-squares minimum the error has no component along any of the four parameters."""
    face = ARCFACE_112 + np.random.default_rng(1).normal(0, 5, (5, 2))
    matrix = similarity(face, ARCFACE_112)
    error = face @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_112
    turned = np.stack([-face[:, 1], face[:, 0]], axis=1)
    assert [float((error * way).sum()) for way in (face, turned)] == pytest.approx([0, 0], abs=1e-8)
    assert error.sum(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_mirrored_landmarks_are_never_reflected() -> None:
    matrix = similarity(ARCFACE_112 * [-1, 1], ARCFACE_112)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_two_forms_of_the_template() -> None:
    assert template(112, "scaled") == pytest.approx(ARCFACE_112)
    assert template(112, "resized") == pytest.approx(ARCFACE_112)
    assert template(224) == pytest.approx(2 * ARCFACE_112)
    assert template(120, "resized") - template(120, "scaled") == pytest.approx(np.full((5, 2), 0.5 * 120 / 112 - 0.5))


def test_small_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="8x8 pixels are too small"):
        template(8)


def test_warp_by_hand() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    shift = np.array([[1.0, 0, 1], [0, 1, 0]])  # one pixel to the right
    moved = warp(image, shift, 4)
    assert np.array_equal(moved[:, 1:], image[:, :-1])
    assert not moved[:, 0].any()
    half = warp(image, np.array([[1.0, 0, 0.5], [0, 1, 0]]), 4)
    assert half[0, 1].tolist() == [8, 12, 18]  # means of 0 15, 5 20, 10 25 rounded to even
    assert half[0, 0].tolist() == [0, 2, 5]  # half of the first pixel, half border


def test_warp_far_outside_is_black() -> None:
    image = np.full((5, 9, 3), 200, np.uint8)
    assert not warp(image, np.array([[1.0, 0, 1e12], [0, 1, -1e12]]), 16).any()


def test_aligned_landmarks_land_on_the_template() -> None:
    """Bright dots at the landmarks of a turned and enlarged face end up at the template."""
    face = (ARCFACE_112 @ rotation(25, 3.0).T) + [250, 40]
    image = np.zeros((500, 500, 3), np.uint8)
    for x, y in np.rint(face).astype(int):
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    aligned = align(image, face.astype(np.float32), 112)[..., 0].astype(float)
    for x, y in ARCFACE_112:
        rows, columns = np.mgrid[int(y) - 5 : int(y) + 7, int(x) - 5 : int(x) + 7]
        weight = aligned[rows, columns]
        assert (columns * weight).sum() / weight.sum() == pytest.approx(x, abs=0.35)
        assert (rows * weight).sum() / weight.sum() == pytest.approx(y, abs=0.35)


def test_nearest_pose() -> None:
    for number, pose in enumerate(FIVE_POSES_112):
        matrix, best = nearest_pose(pose @ rotation(10, 2.0).T + 4, FIVE_POSES_112)
        assert best == number
        assert matrix[:, :2] == pytest.approx(rotation(-10, 0.5))


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.full((5, 2), 70.0), "a.jpg: the landmarks lie within 0 pixels of each other"),
        (ARCFACE_112 / 1120, "within 0.[0-9]* pixels of each other; .* in pixels"),
        (np.where(np.eye(5, 2), np.nan, ARCFACE_112), "a.jpg: a landmark is not a finite number"),
        (np.where(np.eye(5, 2), np.inf, ARCFACE_112), "a.jpg: a landmark is not a finite number"),
        (np.zeros((7, 2)), r"a.jpg: landmarks must be 5, 25, 68 or 106 points \(x, y\), got shape \(7, 2\)"),
        (np.zeros((5, 3)), r"got shape \(5, 3\)"),
    ],
)
def test_degenerate_landmarks_are_refused(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        align(np.zeros((9, 9, 3), np.uint8), landmarks, where="a.jpg")


def test_landmarks_that_follow_no_face_are_refused() -> None:
    face = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    with pytest.raises(DataError, match="a: the landmarks do not resemble a face; check their order"):
        similarity(face * [1, -1], face, "a")  # a mirrored square: every rotation fits equally badly


def tolerance(entry: dict[str, Any], what: str, kind: str) -> float:
    found = re.search(rf"\b{kind} ([0-9.]+(?:e-?[0-9]+)?)", entry["tolerance"][what])
    assert found is not None, f"no '{kind}' in {entry['tolerance'][what]!r}"
    return float(found[1])


def check_set(name: str, arrays: Any, entry: dict[str, Any]) -> None:
    landmarks = arrays[f"{name}/landmarks"]
    rtol, atol = (tolerance(entry, "matrix", kind) for kind in ("rtol", "atol"))
    found = {
        "matrix_112": similarity(landmarks, template(112)),
        "matrix_120_scaled_template": similarity(landmarks, template(120, "scaled")),
        "matrix_120_resize_equivalent": similarity(landmarks, template(120, "resized")),
    }
    for size in (112, 224):
        found[f"matrix_5pose_{size}"], index = nearest_pose(landmarks, FIVE_POSES_112 * (size / 112))
        assert index == arrays[f"{name}/pose_index_{size}"]
    for key, matrix in found.items():
        np.testing.assert_allclose(matrix, arrays[f"{name}/{key}"], rtol=rtol, atol=atol, err_msg=f"{name}/{key}")
    if f"{name}/warped_float" in arrays:
        difference = np.abs(warp(arrays["image"], found["matrix_112"], 112) - arrays[f"{name}/warped_float"])
        assert difference.max() <= tolerance(entry, "warp", "max abs")
        assert difference.mean() <= tolerance(entry, "warp", "mean abs")


def check_resize(arrays: Any, entry: dict[str, Any]) -> None:
    """The ``resized`` form means half-pixel centres: the same map applied to an aligned image resizes it."""
    scale = 120 / 112
    shift = scale / 2 - 0.5
    larger = warp(arrays["frontal/warped_112"], np.array([[scale, 0, shift], [0, scale, shift]]), 120)
    inner = np.s_[1:-1, 1:-1]  # a resize repeats the border where a warp has zeros
    difference = np.abs(larger.astype(float) - arrays["frontal/resized_120"])[inner]
    assert difference.max() <= tolerance(entry, "resize", "max abs")


def compare(folder: Path) -> None:
    entry = json.loads((folder / "index.json").read_text())["alignment"]
    with np.load(folder / entry["file"]) as arrays:
        np.testing.assert_allclose(ARCFACE_112, arrays["template_112"], atol=1e-5)
        for size in (112, 224):
            np.testing.assert_allclose(FIVE_POSES_112 * (size / 112), arrays[f"templates_5pose_{size}"], atol=1e-5)
        names = [key.removesuffix("/landmarks") for key in arrays.files if key.endswith("/landmarks")]
        possible = [name for name in names if f"{name}/matrix_112" in arrays]
        assert len(possible) < len(names)
        for name in names:
            if name in possible:
                check_set(name, arrays, entry)
            else:  # the published program gives a matrix of NaN
                with pytest.raises(DataError, match=name):
                    similarity(arrays[f"{name}/landmarks"], template(112), name)
        for count in (25, 68, 106):
            np.testing.assert_allclose(five_points(arrays[f"points{count}"]), arrays[f"five_from_{count}"], rtol=1e-12)
        if "frontal/resized_120" in arrays:
            check_resize(arrays, entry)


def test_published_alignments_small_copy() -> None:
    compare(SMALL)


@pytest.mark.golden
def test_published_alignments(golden_root: Path) -> None:
    compare(golden_root / "algorithms")


def orders(points: np.ndarray) -> dict[str, np.ndarray]:
    """Forms in which other programs give five points, (5, 2)."""
    return {
        "y before x": points[:, ::-1],
        "x1..x5 y1..y5": points.T.reshape(5, 2),
        "left and right of the subject": points[[1, 0, 2, 4, 3]],
        "nose first": points[[2, 0, 1, 3, 4]],
        "nose last": points[[0, 1, 3, 4, 2]],
        "mouth first": points[[3, 4, 2, 0, 1]],
        "eyes exchanged": points[[1, 0, 2, 3, 4]],
    }


def test_other_orders_are_unlike_faces_and_poses_are_not() -> None:
    frontal = ARCFACE_112 * 0.3 + (400.0, 20.0)
    for name, points in orders(frontal).items():
        assert unlike_faces(points[None]).tolist() == [True], name
    random = np.random.default_rng(0)
    far = ARCFACE_112 + random.normal(0, 1, (200, 5, 2)) + random.uniform(0, 2000, (200, 1, 2))
    for points in (far, far[..., ::-1]):
        assert unlike_faces(points.swapaxes(1, 2).reshape(200, 5, 2)).mean() > 0.9
    assert not unlike_faces(far).any()
    turn = np.array([[0.5, -0.8], [0.8, 0.5]])
    faces = np.concatenate([FIVE_POSES_112, ARCFACE_112[None], (ARCFACE_112 @ turn)[None]])
    noisy = faces + np.random.default_rng(0).normal(0, 2, (50, *faces.shape))
    assert not unlike_faces(noisy.reshape(-1, 5, 2)).any()
    broken = np.stack([np.full((5, 2), np.nan), np.full((5, 2), 3.0), np.full((5, 2), 1e308)])
    assert not unlike_faces(broken).any()  # others refuse them


def test_another_order_of_most_landmarks_is_refused() -> None:
    swapped = ARCFACE_112[:, ::-1]
    one = np.stack([ARCFACE_112, swapped, ARCFACE_112])
    assert refuse_other_order(one, str).tolist() == [1]
    with pytest.raises(DataError, match=r"1: no face has its landmarks like this, nor do 1 others of 3; .* x before y"):
        refuse_other_order(np.stack([ARCFACE_112, swapped, swapped]), str)


def test_landmarks_outside_of_the_image_are_refused() -> None:
    image = np.full((112, 96, 3), 200, np.uint8)
    assert align(image, ARCFACE_112 - (60.0, 0.0)).any()  # some lie inside
    for shift in ((1100.0, 0.0), (-200.0, 0.0), (0.0, 112.0), (97.0, 0.0)):
        with pytest.raises(DataError, match=r"a\.jpg: all landmarks lie outside of the image, which is 112x96 "):
            align(image, ARCFACE_112 + shift, where="a.jpg")
