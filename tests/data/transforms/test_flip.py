"""A mirrored face: its landmarks keep their meaning."""

import torch

from facelab.data.transforms.augment import Augment

POINTS = torch.tensor([[3.0, 4.0], [8.0, 4.5], [5.0, 6.0], [3.5, 9.0], [7.5, 9.5]])


def test_left_and_right_swap_their_places_in_the_list() -> None:
    moved = Augment({"flip": 1.0}, 0).keypoints(POINTS[None], (14, 12), 0, 0)[0]
    assert moved.tolist() == [[3.0, 4.5], [8.0, 4.0], [6.0, 6.0], [3.5, 9.5], [7.5, 9.0]]


def test_mirroring_twice_is_nothing() -> None:
    change = Augment({"flip": 0.5}, 3)
    once = change.keypoints(POINTS.expand(20, 5, 2), (14, 12), 1, 1)
    assert 0 < (once != POINTS).any(dim=2).any(dim=1).sum() < 20
    assert torch.equal(change.keypoints(once, (14, 12), 1, 1), POINTS.expand(20, 5, 2))
