"""Sharp images and their coarse twins: resolutions, names, the size that a run passes on, refusals."""

import numpy as np
import pytest

from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.data.sources.low_resolution import LowResolutionSource
from facelab.data.synthetic.source import SyntheticFaces, reduce_resolution
from facelab.errors import ConfigError

FACES = {"SyntheticFaces": {"identities": 4, "per_identity": 3}}


def test_each_image_has_a_resolution_of_its_own() -> None:
    sharp = SyntheticFaces(4, 3, size=32)
    source = LowResolutionSource(sharp, (4, 6), seed=1)
    assert set(source.resolutions.tolist()) == {4, 5, 6}
    assert source.resolutions.tolist() != LowResolutionSource(sharp, (4, 6), seed=2).resolutions.tolist()
    assert source.labels.tolist() == sharp.labels.tolist()
    for row in (0, 7):
        expected = reduce_resolution(sharp.read(row), int(source.resolutions[row]))
        np.testing.assert_array_equal(source.read(row), expected)
        assert source.name(row) == f"{sharp.name(row)} at {source.resolutions[row]} pixels"
    prints = {LowResolutionSource(sharp, pixels, seed).fingerprint() for pixels in ((4, 6), (4, 7)) for seed in (1, 2)}
    assert len(prints | {sharp.fingerprint()}) == 5


def test_a_run_passes_its_size_on_to_both_halves() -> None:
    spec = {"Concat": {"share_labels": True, "sources": [FACES, {"LowResolution": {"source": FACES}}]}}
    source = build(SOURCES, spec, size=32)
    assert source.num_classes == 4
    assert source.read(0).shape == source.read(12).shape == (32, 32, 3)
    assert np.abs(source.read(0).astype(int) - source.read(12)).mean() > 1
    assert len({source.name(row) for row in range(24)}) == 24


@pytest.mark.parametrize(("resolution", "sentence"), [((1, 4), "is 1, but must lie in"), ((9, 4), r"is \[9, 4\]")])
def test_refusals(resolution: tuple[int, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LowResolutionSource(FACES, resolution)
