"""Several sources as one: labels set one after the other, or shared."""

from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.sources.concat import Concat
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import ConfigError


def test_labels_follow_one_another(faces: Path) -> None:
    spec = {"sources": [{"ImageFolder": {"root": str(faces)}}, {"ImageFolder": {"root": str(faces), "min_images": 2}}]}
    source = SOURCES.build("Concat", spec)
    assert source.labels.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4]
    assert source.num_classes == 5
    first = ImageFolder(faces)
    for index, row in [(0, 0), (5, 5), (6, 1), (10, 5)]:
        np.testing.assert_array_equal(source.read(index), first.read(row))
        assert source.location(index) == first.location(row)
    with pytest.raises(IndexError):
        source.read(11)


def test_masked_twins_share_labels(faces: Path) -> None:
    folder = ImageFolder(faces)
    twins = Concat([folder, folder], share_labels=True)
    assert twins.num_classes == 3
    assert twins.labels.tolist() == folder.labels.tolist() * 2
    assert twins.fingerprint() != Concat([folder, folder]).fingerprint()


def test_refusals(faces: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least one source"):
        Concat([])
    with pytest.raises(ConfigError, match="different numbers of classes: 3, 2"):
        Concat([ImageFolder(faces), ImageFolder(faces, min_images=2)], share_labels=True)
    with pytest.raises(ConfigError, match="Did you mean 'ImageFolder'"):
        SOURCES.build("Concat", {"sources": [{"ImageFoldr": {"root": str(faces)}}]})
    with pytest.raises(ConfigError, match="option 'sources' is 7"):
        SOURCES.build("Concat", {"sources": 7})
