"""A mirrored face: its landmarks keep their meaning."""

import numpy as np
import torch

from facelab.data.transforms.augment import Augment
from facelab.data.transforms.flip import flip_by_mask, flip_in_memory

POINTS = torch.tensor([[3.0, 4.0], [8.0, 4.5], [5.0, 6.0], [3.5, 9.0], [7.5, 9.5]])


def test_left_and_right_swap_their_places_in_the_list() -> None:
    moved = Augment({"flip": 1.0}, 0).keypoints(POINTS[None], (14, 12), 0, 0)[0]
    assert moved.tolist() == [[3.0, 4.5], [8.0, 4.0], [6.0, 6.0], [3.5, 9.5], [7.5, 9.0]]


def test_mirroring_twice_is_nothing() -> None:
    change = Augment({"flip": 0.5}, 3)
    once = change.keypoints(POINTS.expand(20, 5, 2), (14, 12), 1, 1)
    assert 0 < (once != POINTS).any(dim=2).any(dim=1).sum() < 20
    assert torch.equal(change.keypoints(once, (14, 12), 1, 1), POINTS.expand(20, 5, 2))


def test_the_way_of_a_gpu_gives_the_pixels_of_the_cpu() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), dtype=np.uint8))
    image, rows = pixels.permute(0, 3, 1, 2), np.array([0, 3, 8])
    found = flip_by_mask(image, rows)
    assert torch.equal(found, flip_in_memory(image, rows))
    assert torch.equal(found[rows], image[rows].flip(3))
    assert found.is_contiguous(memory_format=torch.channels_last)
