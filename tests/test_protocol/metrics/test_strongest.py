"""The strongest scores from tiles are those of the whole matrix, and TAR from them is that of the whole ROC."""

import numpy as np
import pytest

from facelab.errors import ConfigError
from facelab.test_protocol.metrics.metrics import roc, tar_at_far
from facelab.test_protocol.metrics.score_tiles import Faces, tiles
from facelab.test_protocol.metrics.strongest import BestEntries, HighestScores, scores_needed, tar_from_highest


def _sides(seed: int) -> tuple[Faces, Faces]:
    """Vectors of small whole numbers: scores are exact, and there are many ties."""
    random = np.random.default_rng(seed)
    probe, gallery = (random.integers(-3, 4, (count, 3)).astype(np.float32) for count in (23, 71))
    return Faces.strangers(probe), Faces.strangers(gallery, np.arange(1, 70))


@pytest.mark.parametrize("block", [3, 16, 4096])
def test_best_entries(block: int) -> None:
    probe, gallery = _sides(block)
    best = BestEntries(len(probe), 5)
    for tile in tiles(probe, gallery, block=block):
        best.add(tile)
    scores = (probe.vectors @ gallery.vectors[1:70].T).astype(np.float64)
    assert best.scores.tolist() == np.sort(scores, axis=1)[:, -5:].tolist()
    assert [scores[row, entry - 1] for row, entry in enumerate(best.entry)] == scores.max(axis=1).tolist()


def test_fewer_entries_than_asked_for_leave_empty_places() -> None:
    probe, gallery = _sides(0)
    best = BestEntries(len(probe), 80)
    for tile in tiles(probe, gallery):
        best.add(tile)
    assert np.isinf(best.scores[:, :11]).all()
    assert np.isfinite(best.scores[:, 11:]).all()


@pytest.mark.parametrize("fars", [(0.001,), (0.01, 0.2), (1.0,)])
@pytest.mark.parametrize("block", [3, 16, 4096])
def test_tar_without_all_scores_is_that_of_the_roc(block: int, fars: tuple[float, ...]) -> None:
    probe, gallery = _sides(block)
    genuine = np.random.default_rng(1).integers(0, 20, 40).astype(np.float64)
    negatives = len(probe) * len(gallery)
    highest = HighestScores(scores_needed(fars, negatives))
    for tile in tiles(probe, gallery, block=block):
        highest.add(tile.scores, np.arange(len(tile.rows)))
    impostor = (probe.vectors @ gallery.vectors[1:70].T).astype(np.float64).ravel()
    kept = highest.falling()
    assert kept.tolist() == np.sort(impostor)[::-1][: highest.count].tolist()
    curve = roc(np.concatenate((genuine, impostor)), np.arange(len(genuine) + len(impostor)) < len(genuine))
    for ours, whole in zip(tar_from_highest(genuine, kept, negatives, fars), tar_at_far(curve, fars), strict=True):
        assert (ours.tar, ours.far, ours.measurable) == (whole.tar, whole.far, whole.measurable)


def test_rows_that_do_not_count_are_left_out() -> None:
    highest = HighestScores(2)
    highest.add(np.array([[1.0, 2.0], [9.0, 8.0], [3.0, 0.0]]), np.array([0, 2]))
    assert highest.falling().tolist() == [3.0, 2.0]


def test_rates_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="a target FAR"):
        scores_needed([0.0], 10)
