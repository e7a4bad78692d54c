"""Curves of 1:1 protocols."""

import numpy as np

from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.protocols.verification import corners


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
