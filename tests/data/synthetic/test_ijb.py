"""IJB-C of synthetic faces: landmarks that fit, lists that agree, and a protocol that runs on them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab.data.alignment.alignment import similarity
from facelab.data.synthetic.camera import TEMPLATE
from facelab.data.synthetic.ijb import loose_crop, write_ijb
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.protocols.ijb import IJBC
from facelab.test_protocol.run import run_protocols


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> SyntheticFaces:
    return SyntheticFaces(10, 7, size=48, split="test", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def root(faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ijb(tmp_path_factory.mktemp("sets") / "ijb" / "IJBC", faces, faces.landmarks)


class Small(nn.Module):
    """A tiny network of random weights."""

    input_spec = InputSpec(32, 32)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layers(image)
        return result


def test_landmarks_lie_near_the_template_that_faces_are_drawn_in(faces: SyntheticFaces) -> None:
    target = np.column_stack((TEMPLATE.real, TEMPLATE.imag)) * 48 - 0.5
    offset = faces.landmarks - target
    assert faces.landmarks.shape == (70, 5, 2)
    assert np.abs(offset.mean(axis=0)).max() < 1.5  # the photo's misalignment is random
    assert np.abs(offset).max() < 0.15 * 48


def test_a_loose_crop_and_its_points_move_together() -> None:
    face = np.zeros((60, 60, 3), np.uint8)
    points = np.array([(15.0, 20.0), (44.0, 20.0), (30.0, 33.0), (20.0, 45.0), (41.0, 46.0)])
    for x, y in points.astype(int).tolist():
        cv2.circle(face, (x, y), 2, (255, 255, 255), cv2.FILLED)
    random = np.random.default_rng(4)
    for _ in range(10):
        crop, moved = loose_crop(face, points, random)
        assert crop.shape == (96, 96, 3)
        found = [crop[round(y), round(x), 0] for x, y in moved.tolist()]
        assert min(found) > 150
        turn = similarity(moved, points)
        np.testing.assert_allclose(np.hypot(*turn[0, :2]), 1 / np.clip(1 / np.hypot(*turn[0, :2]), 0.8, 1.25))


def test_lists_agree(root: Path, faces: SyntheticFaces) -> None:
    protocol = IJBC(root)
    assert len(protocol.images) == len(faces)
    assert protocol.lists is not None
    galleries, probes = protocol.lists.galleries, protocol.lists.probes
    assert [len(gallery.template) for gallery in galleries] == [5, 5]  # 3 images of each person
    assert sorted(np.concatenate([gallery.person for gallery in galleries])) == list(range(10))
    assert np.bincount(probes.person).tolist() == [2] * 10  # templates of 3 and 1 images
    assert np.bincount(np.bincount(protocol.listed.grouping.template)).tolist() == [0, 10, 0, 20]
    pairs = protocol.pairs
    assert (len(pairs.same), int(pairs.same.sum())) == (200, 20)
    assert ((protocol.people[pairs.left] == protocol.people[pairs.right]) == pairs.same).all()


def test_end_to_end(root: Path) -> None:
    protocol = PROTOCOLS.build("IJBC", {"root": str(root), "size": 32, "fars": [0.1], "fpirs": [0.1]})
    (report,) = run_protocols(Small(), [("IJB-C", protocol)])
    values = {metric.name: metric.value for metric in report.metrics}
    chance = {"TAR@FAR=1e-1": 0.1, "AUC": 0.5, "rank-1": 0.2}
    assert all((values[name] or 0) > 1.2 * value for name, value in chance.items()), values
    assert values["TPIR@FPIR=0.1"] is not None


def test_pairs_can_be_fewer(faces: SyntheticFaces, tmp_path: Path) -> None:
    told: list[Any] = []
    pairs = IJBC(write_ijb(tmp_path / "x", faces, faces.landmarks, pairs=40, progress=lambda *x: told.append(x))).pairs
    assert int(pairs.same.sum()) == 20
    assert 25 <= int((~pairs.same).sum()) <= 40
    assert len(np.unique(np.stack((pairs.left, pairs.right)), axis=1).T) == len(pairs.same)
    assert told[-1] == (70, 70)


def test_refusals(faces: SyntheticFaces, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        write_ijb(root, faces, faces.landmarks)
    with pytest.raises(DataError, match=r"70 images need five landmarks each, got an array of shape \(70, 4, 2\)"):
        write_ijb(tmp_path / "x", faces, faces.landmarks[:, :4])
    single = SyntheticFaces(3, 1, size=16, cache=tmp_path)
    with pytest.raises(ConfigError, match="at least 2 persons, and of each at least 2 images"):
        write_ijb(tmp_path / "x", single, single.landmarks)
    assert not (tmp_path / "x").exists()
