"""A hash of what an image looks like: pictures that were compressed, resized, brightened or mirrored stay near it.

The grey image at 32x32 is taken apart into cosines of 16x16 frequencies (DCT-II); each bit says whether one is above
what is usual in the set. Aligned faces all look alike, so that a hash with fixed thresholds, as pHash has it, gives
thousands of false pairs; with the set's own medians, and 255 bits, the hashes of two photographs differ by about 128.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.data.base import Pixels
from facelab.data.formats.images import resize_image

SIDE, FREQUENCIES = 32, 16
BITS = FREQUENCIES * FREQUENCIES  # the first one, of the mean grey, is always 0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
TABLES = 32  # orders in which near hashes are looked for
LEAST_KEY = 12  # bits
LONGEST_RUN = 1024  # neighbours in one order; more have one key only where masses of images look alike

Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Two rows and the number of bits that differ, each (M,)."""

_BASIS = np.cos(np.pi * np.outer(np.arange(FREQUENCIES), np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
_ODD = np.tile(np.arange(FREQUENCIES) % 2 == 1, FREQUENCIES)  # frequencies that change their sign in a mirror
_MIRROR: Hashes = np.packbits(_ODD).view(np.uint64)
_ONES = np.array([bin(value).count("1") for value in range(256)], np.uint8)


def coefficients(images: list[Pixels]) -> NDArray[np.float32]:
    """Cosine coefficients of RGB images of any size, (B, 256)."""
    small = np.stack([resize_image(image, SIDE, SIDE) for image in images]) @ LUMA
    return np.asarray((_BASIS @ small @ _BASIS.T).reshape(len(images), BITS))


def usual(coefficients_of_some: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the coefficients of a set usually are, (256,): thresholds for `hashes`."""
    middle = np.median(coefficients_of_some, axis=0)
    # Exactly 0, which it nearly is: so that mirroring flips these bits and no others.
    middle[_ODD] = 0.0
    middle[0] = np.inf
    return np.asarray(middle, np.float32)


def hashes(values: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Hashes:
    """Hashes of coefficients, (B, 256) -> (B, 4)."""
    return np.packbits(values > thresholds, axis=1).view(np.uint64)


def distance(left: Hashes, right: Hashes) -> NDArray[np.int64]:
    """Bits that differ between two hashes, (..., 4) -> (...), the second one mirrored or not, whichever is nearer."""
    return np.minimum(_differing(left, right), _differing(left, right ^ _MIRROR))


def near_pairs(table: Hashes, most: int, seed: int = 0) -> Pairs:
    """Pairs of hashes that differ in at most ``most`` bits.

    Each of 32 orders sorts by some random bits, so many that few hashes share them by chance, and compares neighbours:
    a pair that differs in 25 of 255 bits among a million images is missed in one case of fifty, one that differs in 10
    never; the work grows with n log n. Images that look exactly alike are paired with the first of them alone.

    Args:
        table: (N, 4).
        most: Bits.
        seed: Chooses the orders.

    Returns:
        The smaller and the larger row and the distance, in the order of rows.
    """
    whole = np.ascontiguousarray(table).view(np.dtype((np.void, 32))).ravel()
    _, first, same = np.unique(whole, return_index=True, return_inverse=True)
    rows, unique = np.arange(len(table)), table[first]
    copies = np.flatnonzero(first[same] != rows)
    found = [np.stack([first[same[copies]], copies, np.zeros(len(copies), np.int64)])]
    both = np.concatenate([unique, unique ^ _MIRROR])
    random = np.random.default_rng(seed)
    bits = max(LEAST_KEY, len(both).bit_length())
    for _ in range(TABLES):
        chosen = 1 + random.permutation(BITS - 1)[:bits]
        left, right = _sharing(_keys(both, chosen), len(unique))
        apart = _differing(both[left], both[right])
        near = apart <= most
        found.append(np.stack([*_ordered(first, left[near] % len(unique), right[near] % len(unique)), apart[near]]))
    pairs = np.unique(np.concatenate(found, axis=1), axis=1)
    # Plain and mirrored, a pair may have two distances: the first, which is the smaller one, counts.
    keep = np.ones(pairs.shape[1], bool)
    keep[1:] = (pairs[:2, 1:] != pairs[:2, :-1]).any(axis=0)
    left, right, apart = pairs[:, keep]
    return left, right, apart


def _ordered(
    first: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.minimum(first[left], first[right]), np.maximum(first[left], first[right])


def _keys(table: Hashes, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some bits of each hash as a number."""
    octets = table.view(np.uint8)
    keys = np.zeros(len(table), np.int64)
    for place, bit in enumerate(chosen.tolist()):
        keys |= ((octets[:, bit // 8] >> (7 - bit % 8)) & 1).astype(np.int64) << place
    return keys


def _sharing(keys: NDArray[np.int64], plain: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of entries with the same key, of different images, and not both mirrored."""
    # torch's stable sort takes a third of NumPy's time.
    ordered, order = (part.numpy() for part in torch.sort(torch.from_numpy(keys), stable=True))
    found = []
    for step in range(1, min(LONGEST_RUN, len(keys))):
        place = np.flatnonzero(ordered[step:] == ordered[:-step])
        if not len(place):
            break
        left, right = order[place], order[place + step]
        wanted = (np.minimum(left, right) < plain) & (left % plain != right % plain)
        found.append(np.stack([left[wanted], right[wanted]]))
    left, right = np.concatenate(found, axis=1) if found else np.empty((2, 0), np.int64)
    return left, right


def _differing(left: Hashes, right: Hashes) -> NDArray[np.int64]:
    octets = np.ascontiguousarray(left ^ right).view(np.uint8)
    return np.asarray(_ONES[octets].sum(axis=-1, dtype=np.int64))
