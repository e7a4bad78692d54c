"""Squares and non-maximum suppression, by hand."""

import numpy as np

from facelab.data.detection.boxes import distinct, square


def test_a_square_keeps_centre_and_longer_side() -> None:
    assert square(np.array([[10.0, 20.0, 30.0, 60.0]])).tolist() == [[0.0, 20.0, 40.0, 60.0]]


def test_the_surest_of_overlapping_boxes_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 4, 4.0]])
    scores = np.array([0.7, 0.9, 0.8, 0.6])
    # Boxes 0 and 1 share 80 of 100; box 3 shares 16 of 80 with box 1, but all of itself.
    assert distinct(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert distinct(boxes, scores, 0.81).tolist() == [1, 2, 0, 3]
    assert distinct(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 2]
    assert distinct(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_boxes_without_area_do_not_cover_each_other() -> None:
    assert distinct(np.zeros((2, 4)), np.array([0.5, 0.5]), 0.3).tolist() == [0, 1]
