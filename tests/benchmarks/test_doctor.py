"""The study of the doctor plants what it says, the same for one seed, and counts it rightly."""

import importlib
from pathlib import Path
from types import ModuleType

import cv2
import pytest

from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.source import SyntheticFaces

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PEOPLE, PHOTOS = 16, 5


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("doctor_plants")


@pytest.fixture
def source(tmp_path: Path) -> ImageFolder:
    drawn = SyntheticFaces(PEOPLE, PHOTOS, 32)
    for row in range(len(drawn)):
        path = tmp_path / "faces" / f"p{row // PHOTOS:02d}" / f"{row % PHOTOS}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), drawn.read(row)[..., ::-1])
    return ImageFolder(tmp_path / "faces")


@pytest.mark.parametrize("group", ["pixels", "labels", "copies"])
def test_what_is_planted_is_there_and_follows_the_seed(
    plants: ModuleType, source: ImageFolder, group: str, tmp_path: Path
) -> None:
    first, second = plants.halves(source)
    assert first | second == set(range(PEOPLE))
    assert not first & second
    planted = plants.plant(source, first, group, 0.1, seed=3)
    assert set(planted.truth) <= set(plants.GROUPS[group])
    assert len(planted.truth) >= 3
    people = planted.people()
    for kind, errors in planted.truth.items():
        assert errors
        assert all(name in (people if kind == "two labels" else planted.files) for names in errors for name in names)
    again, other = (plants.plant(source, first, group, 0.1, seed) for seed in (3, 4))
    assert again == planted
    assert other.truth != planted.truth
    plants.write(planted, tmp_path / "copy")
    assert len(ImageFolder(tmp_path / "copy" / "train.tar")) == len(planted.files)


def test_figures_make_a_table(plants: ModuleType) -> None:
    program = importlib.import_module("doctor")
    assert plants
    runs = [
        {"group": "nothing", "kinds": {"wrong label": {"planted": 0, "found": 2, "both": 0}}},
        {"group": "labels", "kinds": {"wrong label": {"planted": 10, "found": 8, "both": 6}}},
        {"group": "labels", "kinds": {"wrong label": {"planted": 10, "found": 4, "both": 3}, "size": {"found": 3}}},
    ]
    assert program.table(runs).splitlines()[2:] == ["| wrong label | 20 | 12 | 75.0 | 45.0 | 2 |"]
