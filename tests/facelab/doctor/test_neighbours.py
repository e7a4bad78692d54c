"""Nearest neighbours in tiles, and components."""

import numpy as np
import pytest

from facelab.doctor import neighbours
from facelab.doctor.groups import components
from facelab.doctor.neighbours import nearest


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    found = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_tiles_give_what_the_whole_matrix_gives(vectors: np.ndarray) -> None:
    whole = vectors @ vectors.T
    np.fill_diagonal(whole, -np.inf)
    found = nearest(vectors, count=9)
    assert found.rows.tolist() == np.argsort(-whole, axis=1)[:, :9].tolist()
    np.testing.assert_allclose(found.cosine, -np.sort(-whole, axis=1)[:, :9], atol=1e-6)


def test_another_set_is_searched_whole(vectors: np.ndarray) -> None:
    found = nearest(vectors[:5], vectors, 1)
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_there_may_be_fewer_than_asked_for(vectors: np.ndarray) -> None:
    assert nearest(vectors[:3], count=10).rows.shape == (3, 2)
    assert nearest(vectors[:1], count=10).rows.shape == (1, 0)


def test_components_follow_chains_in_any_order() -> None:
    chain = np.random.default_rng(0).permutation(50)
    root = components(60, chain[:-1], chain[1:])
    assert (root[:50] == 0).all()
    assert root[50:].tolist() == list(range(50, 60))
    assert components(3, np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == [0, 1, 2]
