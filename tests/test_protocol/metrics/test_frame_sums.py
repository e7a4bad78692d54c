"""Sums of frames: each weighting by hand, in chunks as in one piece, and what is refused."""

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.quality.card import ScorerCard
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics.frame_sums import WEIGHTINGS, Weighting, longest_rows, weighted_sums

VALUES = np.array([[3, 4], [0, 2], [1, 0], [0, 0]], np.float32)  # norms 5, 2, 1 and 0
GROUP = np.array([0, 0, 2, 2])
QUALITY = np.array([10, 1, 3, 5], np.float32)
FALLING = ScorerCard(name="Blur", higher_is_better=False)
EXPECTED: dict[Weighting, list[list[float]]] = {
    "norm": [[3, 6], [0, 0], [1, 0]],
    "norm2": [[15, 24], [0, 0], [1, 0]],
    "unit": [[0.6, 1.8], [0, 0], [1, 0]],
    "quality": [[6, 9], [0, 0], [3, 0]],
}


def where(row: int) -> str:
    return f"image-{row}"


def sums(embeddings: Embeddings, weighting: Weighting, *, flip: bool = False, chunk: int = 100) -> np.ndarray:
    return weighted_sums(embeddings, GROUP, 3, weighting, flip, where, chunk)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_each_weighting_by_hand_in_any_chunks(weighting: Weighting, chunk: int) -> None:
    np.testing.assert_allclose(sums(Embeddings(VALUES, None, QUALITY), weighting, chunk=chunk), EXPECTED[weighting])


def test_groups_may_be_scattered() -> None:
    order = np.random.default_rng(0).permutation(200)
    group = np.arange(200) % 7
    values = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    whole = weighted_sums(Embeddings(values), group, 7, "norm2", False, where)
    mixed = weighted_sums(Embeddings(values[order]), group[order], 7, "norm2", False, where, chunk=13)
    np.testing.assert_allclose(whole, mixed, atol=1e-9)


def test_where_lower_is_better_the_worst_image_weighs_nothing() -> None:
    result = sums(Embeddings(VALUES, None, QUALITY, scorer=FALLING), "quality")
    np.testing.assert_allclose(result, [[0 * 0.6, 0 * 0.8 + 9], [0, 0], [7, 0]])


def test_images_that_could_not_be_read_add_nothing() -> None:
    quality = np.array([np.nan, 1, 3, 5], np.float32)
    skipped = np.array([True, False, False, False])
    unread = Embeddings(VALUES, None, quality, skipped, failed=((0, "cut off"),))
    np.testing.assert_allclose(sums(unread, "quality"), [[0, 1], [0, 0], [3, 0]])
    np.testing.assert_allclose(sums(unread, "norm"), [[0, 2], [0, 0], [1, 0]])


def test_mirrored_embeddings_are_added_before_they_are_weighted() -> None:
    result = sums(Embeddings(VALUES, VALUES[:, ::-1].copy()), "norm2", flip=True)
    np.testing.assert_allclose(result[0], [7 * np.sqrt(98) + 2 * np.sqrt(8), 7 * np.sqrt(98) + 2 * np.sqrt(8)])


def test_the_longest_embedding_of_each_group() -> None:
    assert longest_rows(VALUES, GROUP, 3).tolist() == [0, -1, 2]
    assert longest_rows(VALUES[::-1], GROUP[::-1], 3, chunk=1).tolist() == [3, -1, 1]


@pytest.mark.parametrize(
    ("embeddings", "weighting", "flip", "message"),
    [
        (Embeddings(VALUES), "quality", False, "no quality scores"),
        (Embeddings(VALUES, None, QUALITY[:2]), "quality", False, "4 images need as many quality scores, got 2"),
        (Embeddings(VALUES, None, -QUALITY), "quality", False, "image-0: its quality score is -10"),
        (Embeddings(VALUES, None, QUALITY * np.nan), "quality", False, "image-0: its quality score is nan"),
        (Embeddings(VALUES), "norm", True, "no embeddings of the mirrored images"),
    ],
)
def test_refusals(embeddings: Embeddings, weighting: Weighting, flip: bool, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sums(embeddings, weighting, flip=flip)
