"""Synthetic faces as IJB-S: what is written, what is refused, and the protocol on them from end to end."""

from collections import Counter
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor, nn

from facelab.data.synthetic.ijbs import write_ijbs
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.lists.data_root import find_protocols
from facelab.test_protocol.lists.ijbs_files import read_tasks
from facelab.test_protocol.run import run_protocols

PERSONS, EACH = 10, 9


class Blocks(nn.Module):
    """Colours of 8 x 8 blocks, without their mean."""

    input_spec = InputSpec(32, 32)

    def forward(self, image: Tensor) -> Tensor:
        blocks = nn.functional.adaptive_avg_pool2d(image, 8).flatten(1)
        return blocks - blocks.mean(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> SyntheticFaces:
    return SyntheticFaces(PERSONS, EACH, size=32, split="test", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def root(faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ijbs(tmp_path_factory.mktemp("out") / "ijbs", faces)


def test_every_image_is_one_crop(root: Path, faces: SyntheticFaces) -> None:
    crops = [path.relative_to(root / "crops") for path in root.glob("crops/*/*.jpg")]
    assert Counter(path.parent.name for path in crops) == {str(person + 1): EACH for person in range(PERSONS)}
    metadata = (root / "protocols" / "ijbs_metadata.csv").read_text().splitlines()
    assert len(metadata) == 1 + len(faces)
    sharp, reduced = (
        cv2.Laplacian(cv2.imread(str(next(root.glob(pattern)))), cv2.CV_64F).var()
        for pattern in ("crops/1/img_*.jpg", "crops/1/videos_*.jpg")
    )
    assert sharp > 2 * reduced


def test_templates(root: Path) -> None:
    single, booking, surveillance, multiview, uav = read_tasks(root)
    assert [len(task.probes) for task in (single, booking, surveillance, multiview, uav)] == [30, 30, 20, 10, 10]
    for task in (single, booking, surveillance):
        assert [len(gallery) for gallery in task.galleries] == [5, 5]
        assert len({template.subject for gallery in task.galleries for template in gallery}) == PERSONS
    assert {len(template.media) for gallery in booking.galleries for template in gallery} == {2}
    assert Counter(probe.media[0].split("/")[0] for probe in uav.probes) == {"videos": 6, "img": 4}


def test_end_to_end(root: Path) -> None:
    torch.manual_seed(0)
    found = find_protocols(root.parent)
    assert found.specs == {"IJB-S": {"IJBS": {"root": str(root)}}}
    protocols = [
        (weighting, PROTOCOLS.build("IJBS", {"root": str(root), "weighting": weighting, "flip": True}))
        for weighting in ("norm", "unit")
    ]
    for report in run_protocols(Blocks(), protocols):
        values = {metric.name: metric.value for metric in report.metrics}
        assert len(values) == 25
        assert 0.1 < values["surveillance_to_single rank-1"] <= values["surveillance_to_single rank-5"] <= 1.0
        assert values["surveillance_to_single rank-10"] == 1.0  # there are ten entries
        assert values["surveillance_to_single TPIR@FPIR=0.1"] is not None
        assert values["multiview_surveillance_to_booking TPIR@FPIR=0.01"] is None
        assert report.options["images"] == PERSONS * EACH


def test_another_seed_divides_the_galleries_otherwise(faces: SyntheticFaces, root: Path, tmp_path: Path) -> None:
    name = "protocols/galleries/ijbs_surveillance_to_single_g1.csv"
    again, other = write_ijbs(tmp_path / "a", faces), write_ijbs(tmp_path / "b", faces, seed=1)
    assert (again / name).read_bytes() == (root / name).read_bytes() != (other / name).read_bytes()


def test_refusals(faces: SyntheticFaces, root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2 persons, and of each at least 4 images"):
        write_ijbs(tmp_path / "x", SyntheticFaces(4, 3, size=32, split="test", cache=tmp_path))
    with pytest.raises(ConfigError, match="resolution is 2"):
        write_ijbs(tmp_path / "x", faces, resolution=2)
    with pytest.raises(DataError, match="exists already"):
        write_ijbs(root, faces)
