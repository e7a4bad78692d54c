"""Each person in both qualities: low versions are made where none are given."""

from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.sources.both_qualities import BothQualities
from facelab.data.sources.degradation import Degraded
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import ConfigError


def test_low_versions_are_made(faces: Path) -> None:
    folder = {"ImageFolder": {"root": str(faces)}}
    source = SOURCES.build("BothQualities", {"source": folder, "sizes": [4, 6], "recipe": "interpolation", "seed": 3})
    high, low = ImageFolder(faces), Degraded(folder, (4, 6), 3, recipe="interpolation")
    assert source.num_classes == 3
    assert source.labels.tolist() == high.labels.tolist() * 2
    np.testing.assert_array_equal(source.read(4), high.read(4))
    np.testing.assert_array_equal(source.read(6 + 4), low.read(4))


def test_low_versions_are_given(faces: Path) -> None:
    both = BothQualities({"ImageFolder": {"root": str(faces)}}, low={"ImageFolder": {"root": str(faces)}})
    np.testing.assert_array_equal(both.read(6 + 4), both.read(4))
    with pytest.raises(ConfigError, match="different numbers of classes: 3, 2"):
        BothQualities(ImageFolder(faces), low=ImageFolder(faces, min_images=2))
