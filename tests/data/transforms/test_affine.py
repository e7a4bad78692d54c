"""CVLface's affine augmentation against the original program: maps, landmarks, and the pictures that belong to them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from facelab.data.transforms.affine import affine_maps
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.flip import MIRRORED_ORDER
from facelab.data.transforms.resample import resample, resample_points
from facelab.errors import ConfigError

COPY = Path(__file__).resolve().parents[2] / "golden" / "algorithms"
SIDE = 112
ONE = np.array([0])


def compare(folder: Path) -> None:
    cases = json.loads((folder / "index.json").read_text())["gridsample_augment"]["options"]["cases"]
    with np.load(folder / "gridsample_augment.npz") as arrays:
        for case in cases:
            place = np.array([[case["signx"] * case["px"], case["signy"] * case["py"]]])
            scale, angle, margin = (np.array([float(case[key])]) for key in ("scale", "angle", "extra_offset_val"))
            maps = affine_maps(scale, angle, place, margin, (SIDE, SIDE))
            mirror = np.diag([-1.0 if case["hflip"] else 1.0, 1.0, 1.0])
            theta = maps @ mirror  # the flip comes last here, too
            np.testing.assert_allclose(theta[0], arrays[f"{case['name']}/theta_f64"], rtol=1e-5, atol=1e-7)
            _compare_points(theta, arrays[f"{case['name']}/keypoints"], arrays[f"{case['name']}/keypoints_out_f64"])
            if f"{case['name']}/image" in arrays:
                _compare_pictures(theta, arrays[f"{case['name']}/image"], arrays[f"{case['name']}/image_theta"])


def _compare_points(theta: np.ndarray, given: np.ndarray, expected: np.ndarray) -> None:  # type: ignore[type-arg]
    """Theirs count in sides from the picture's border, ours in pixels from the first one's centre."""
    moved = resample_points(torch.from_numpy(given).double()[None] * SIDE - 0.5, (SIDE, SIDE), ONE, theta)
    if theta[0, 0, 0] < 0:
        moved = moved[:, MIRRORED_ORDER]
    np.testing.assert_allclose((moved[0].numpy() + 0.5) / SIDE, expected, rtol=1e-5)


def _compare_pictures(theta: np.ndarray, image: np.ndarray, expected: np.ndarray) -> None:  # type: ignore[type-arg]
    """Theirs have -1 and 1 at the centres of the outermost pixels, ours at their borders; grey values are cut off."""
    theta = theta.copy()
    theta[:, :, 2] *= (SIDE - 1) / SIDE
    found = resample(torch.from_numpy(image).permute(2, 0, 1)[None], ONE, theta)[0].permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert np.quantile(difference[1:-1, 1:-1], 0.999) <= 1


def test_maps_landmarks_and_pictures_are_those_of_the_original() -> None:
    compare(COPY)


def test_golden_folder(golden_root: Path) -> None:
    compare(golden_root / "newest" / "algorithms")


def test_a_turn_of_a_picture_that_is_not_square_shears_nothing() -> None:
    """A right angle stays one: the ends of a cross keep their distances from its middle."""
    maps = affine_maps(np.ones(1), np.array([90.0]), np.zeros((1, 2)), np.zeros(1), (40, 20))
    points = torch.tensor([[[9.5, 19.5], [14.5, 19.5], [9.5, 24.5]]], dtype=torch.float64)
    moved = resample_points(points, (40, 20), ONE, maps)[0]
    torch.testing.assert_close(moved, torch.tensor([[9.5, 19.5], [9.5, 14.5], [14.5, 19.5]], dtype=torch.float64))


def test_a_part_is_turned() -> None:
    change = Augment({"affine": {"scale": [1.0, 1.0], "margin": 0.0, "turned": 0.25}}, 0)
    points = torch.tensor([[[20.0, 40.0], [90.0, 40.0], [55.0, 60.0], [40.0, 90.0], [70.0, 90.0]]]).expand(400, 5, 2)
    moved = change.keypoints(points, (SIDE, SIDE), 0, 0)
    assert 70 < ((moved - points).abs().amax(dim=(1, 2)) > 1e-3).sum() < 130
    assert (moved[:, 1, 1] - moved[:, 0, 1]).abs().max() < 70 * np.sin(np.deg2rad(20)) + 1e-3


def test_scales_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"affine scale is \[1.2, 0.8\]; write the lesser one first"):
        TRANSFORMS.build("affine", {"scale": [1.2, 0.8]})
