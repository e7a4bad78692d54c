"""Affine maps of images and points: the same map for both."""

import numpy as np
import torch

from facelab.data.transforms.resample import resample, resample_points, scale_and_shift

ROWS = np.array([0, 2])
SIZE = (20, 20)


def quarter_turn(count: int) -> np.ndarray:
    """A new pixel (x, y) shows what lay at (-y, x)."""
    return np.tile(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), (count, 1, 1))


def test_a_quarter_turn_is_exact_for_pixels_and_points() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8))
    image = image.permute(0, 3, 1, 2)
    turned = resample(image, ROWS, quarter_turn(2))
    assert torch.equal(turned[ROWS], image[ROWS].rot90(1, (2, 3)))
    assert torch.equal(turned[1], image[1])
    points = torch.tensor([[3.0, 4.0], [15.0, 2.0]]).expand(3, 2, 2)
    moved = resample_points(points, SIZE, ROWS, quarter_turn(2))
    assert torch.equal(moved[1], points[1])
    for old, new in zip(points[0], moved[0], strict=True):
        x, y = new.round().int().tolist()
        assert torch.equal(turned[0, :, y, x], image[0, :, int(old[1]), int(old[0])])


def test_scale_and_shift_by_hand() -> None:
    """A crop of the right half in width: what lay at its left border, x = 0, comes to -1."""
    maps = scale_and_shift(np.array([[0.5, 1.0]]), np.array([[0.5, 0.0]]))
    assert maps.tolist() == [[[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]]
    points = torch.tensor([[[9.5, 7.0], [19.5, 0.0]]])  # the middle and the right border of 20 pixels
    moved = resample_points(points, SIZE, np.array([0]), maps)
    assert torch.allclose(moved, torch.tensor([[[-0.5, 7.0], [19.5, 0.0]]]), atol=1e-5)
