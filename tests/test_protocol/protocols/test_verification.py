"""Curves of 1:1 protocols."""

import numpy as np
import pytest

from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.protocols.verification import corners, fnmr_metrics


def test_corners_keep_the_curve() -> None:
    random = np.random.default_rng(0)
    same = random.random(400) < 0.5
    curve = metrics.roc(random.normal(same, 1.0), same)
    kept = corners(curve)
    grid = np.linspace(0, 1, 999)
    np.testing.assert_allclose(
        np.interp(grid, curve.far[kept], curve.tar[kept]), np.interp(grid, curve.far, curve.tar), atol=1e-12
    )
    assert len(kept) < len(curve.far)


def test_fnmr_at_fmr_is_that_of_scikit_learn_with_its_ties_and_ends() -> None:
    from sklearn.metrics import roc_curve

    generator = np.random.default_rng(0)
    same = np.arange(30_000) % 3 == 0
    scores = generator.normal(np.where(same, 2.0, 0.0), 1.0).round(2)  # hundreds of ties
    scores[0], scores[1] = np.inf, -np.inf
    points = metrics.tar_at_far(metrics.roc(scores, same), (0.1, 0.01, 1e-3, 1e-4))
    found = list(fnmr_metrics(points, int((~same).sum())))
    # scikit-learn takes no infinite scores; large ones have the same order.
    fmr, tar, _ = roc_curve(same, np.nan_to_num(scores, posinf=99, neginf=-99), drop_intermediate=False)
    for metric, target in zip(found, (0.1, 0.01, 1e-3), strict=False):
        assert metric.value == pytest.approx(1 - tar[fmr <= target].max(), abs=1e-12)
        assert metric.better == "low"
    assert [metric.name for metric in found] == ["FNMR@FMR=1e-1", "FNMR@FMR=1e-2", "FNMR@FMR=1e-3", "FNMR@FMR=1e-4"]
    assert found[-1].value is None
    assert found[-1].note == ("cannot be measured: it needs 100,000 different pairs, 10 / FMR, and there are 20,000")


def test_rates_behind_the_first_that_is_refused_are_not_named() -> None:
    points = metrics.tar_at_far(metrics.roc([0.1, 0.9], [False, True]), (1e-3, 1e-4))
    assert [metric.value for metric in fnmr_metrics(points, 1)] == [None]
