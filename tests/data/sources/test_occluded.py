"""Faces with covered regions: the same whenever they are read, nothing else changed, under their own names."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.catalogue import build
from facelab.cli.main import app
from facelab.data.alignment.regions import REGIONS, region_in
from facelab.data.base import SOURCES
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.occluded import Occluded, Occluder
from facelab.errors import ConfigError, DataError

FACE = np.full((112, 112, 3), 117, np.uint8)
FILLS: list[str | int] = ["texture", "noise", 40]


@pytest.fixture
def faces(tmp_path: Path) -> ImageFolder:
    for name in ("Ann/1.png", "Ann/2.png", "Ben/1.png"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "faces" / name), FACE)
    return ImageFolder(tmp_path / "faces")


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("region", REGIONS)
def test_the_region_is_covered_and_nothing_else(region: Any, fill: str | int) -> None:
    covered = Occluder(region, fill)(FACE, 3)
    outside = np.ones((112, 112), bool)
    outside[region_in(region, 112, 112)] = False
    assert (covered[outside] == 117).all()
    assert (covered[~outside] != 117).any(axis=-1).mean() > 0.9
    assert (FACE == 117).all()


def test_a_function_of_seed_and_index() -> None:
    for fill in FILLS[:2]:
        first = Occluder("mouth", fill)(FACE, 1)
        np.testing.assert_array_equal(Occluder("mouth", fill)(FACE, 1), first)
        assert not np.array_equal(first, Occluder("mouth", fill)(FACE, 2))
        assert not np.array_equal(first, Occluder("mouth", fill, seed=1)(FACE, 1))


def test_a_grey_value_is_painted_as_it_is() -> None:
    assert (Occluder("nose", 40)(FACE, 0)[region_in("nose", 112, 112)] == 40).all()


def test_textures_have_two_colours_and_scale_with_the_face() -> None:
    large, small = (Occluder("upper_face")(np.zeros((size, size, 3), np.uint8), 5) for size in (224, 112))
    pixels = large[region_in("upper_face", 224, 224)].astype(float)
    colours = np.linalg.svd(pixels.reshape(-1, 3) - pixels.mean(axis=(0, 1)), compute_uv=False)
    assert colours[1] < 0.05 * colours[0]  # all on the line between both
    half = cv2.resize(large, (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - small).mean() < 0.1 * large.std()


def test_a_source_with_the_same_people(faces: ImageFolder, tmp_path: Path) -> None:
    covered = build(
        SOURCES, {"Occluded": {"source": {"ImageFolder": {"root": str(tmp_path / "faces")}}, "region": "nose"}}
    )
    assert covered.labels.tolist() == [0, 0, 1]
    assert covered.people_hash() == faces.people_hash()
    np.testing.assert_array_equal(covered.read(2), Occluder("nose")(FACE, 2))
    assert [covered.name(row) for row in range(3)] == [faces.name(row) for row in range(3)]
    others = [Occluded(faces, "mouth"), Occluded(faces, "nose", "noise"), Occluded(faces, "nose", seed=1)]
    assert len({source.fingerprint() for source in [faces, covered, *others]}) == 5


def test_the_command_writes_a_folder_for_each_region_or_nothing(faces: ImageFolder, tmp_path: Path) -> None:
    out = tmp_path / "covered"
    words = ["data", "occlude", str(tmp_path / "faces")]
    run = CliRunner().invoke(app, [*words, str(out), "--region", "nose", "--region", "mouth", "--fill", "40"])
    assert run.exit_code == 0, run.output
    assert sorted(path.name for path in out.iterdir()) == ["mouth", "nose"]
    written = ImageFolder(out / "nose")
    assert [Path(written.name(row)).stem for row in range(3)] == [Path(faces.name(row)).stem for row in range(3)]
    assert np.abs(written.read(0).astype(int) - Occluder("nose", 40)(FACE, 0)).mean() < 3  # JPEG
    assert isinstance(CliRunner().invoke(app, [*words, str(out)]).exception, DataError)
    wrong = CliRunner().invoke(app, [*words, str(tmp_path / "new"), "--region", "noes"])
    assert "'region' is 'noes': Input should be 'left_eye', 'right_eye'" in str(wrong.exception)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "chin"}, "region is 'chin'. Known: left_eye, "),
        ({"region": "nose", "fill": "nois"}, "fill of occlusions is 'nois'. Did you mean 'noise'"),
        ({"region": "nose", "fill": 256}, r"fill of occlusions is 256, but must lie in \[0, 255\]"),
        ({"region": "nose", "seed": -1}, "seed of occlusions is -1"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Occluder(**options)
