"""The hash of what images look like."""

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.doctor.image_hash import coefficients, distance, hashes, near_pairs, usual

Pixels = NDArray[np.uint8]
MOST = 30


def altered(pixels: Pixels) -> list[Pixels]:
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return [cv2.imdecode(encoded, 1), half, (pixels * 0.8).astype(np.uint8), pixels[:, ::-1]]


def test_copies_stay_near_and_other_photos_far(drawn: list[list[Pixels]]) -> None:
    photos = [pixels for person in drawn for pixels in person]
    thresholds = usual(coefficients(photos))
    table = hashes(coefficients(photos), thresholds)
    for place in (0, 17):
        copies = hashes(coefficients(altered(photos[place])), thresholds)
        assert distance(copies, table[place]).max() <= MOST
    apart = distance(table[:, None], table[None])[~np.eye(len(photos), dtype=bool)]
    assert np.sort(apart)[0] > MOST


def test_half_of_the_bits_of_two_photos_differ(drawn: list[list[Pixels]]) -> None:
    photos = [pixels for person in drawn for pixels in person]
    table = hashes(coefficients(photos), usual(coefficients(photos)))
    assert 60 < np.median(distance(table[:20], table[20:40])) < 150


def test_near_pairs_are_all_there_are() -> None:
    random = np.random.default_rng(0)
    bits = random.random((300, 256)) < 0.5
    bits[:, 0] = False
    bits[200:] = bits[:100] ^ (random.random((100, 256)) < 0.06)
    bits[:, 0] = False
    table = np.packbits(bits, axis=1).view(np.uint64)
    left, right, apart = near_pairs(table, MOST)
    every = distance(table[:, None], table[None])
    expected = [(i, j) for i in range(300) for j in range(i + 1, 300) if every[i, j] <= MOST]
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == expected
    assert apart.tolist() == [every[pair] for pair in expected]
    assert len(expected) > 90


def test_equal_images_are_paired_with_the_first_alone() -> None:
    table = np.zeros((5000, 4), np.uint64)
    table[0] = 1 << 40
    left, right, _ = near_pairs(table, 0)
    assert left.tolist() == [1] * 4998
    assert right.tolist() == list(range(2, 5000))
