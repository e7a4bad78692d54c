"""Masked images: the same whenever they are read, under the names of the originals, on the landmarks given."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.catalogue import build
from facelab.cli.main import app
from facelab.data.base import SOURCES, Source
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.masked import Masked
from facelab.errors import DataError


@pytest.fixture
def faces(tmp_path: Path) -> ImageFolder:
    for person, number in (("Ann", 1), ("Ann", 2), ("Ben", 1)):
        (tmp_path / "faces" / person).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "faces" / person / f"{number}.png"), np.full((112, 112, 3), 117, np.uint8))
    return ImageFolder(tmp_path / "faces")


def pixels(source: Source) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([source.read(index) for index in range(len(source))])


def test_they_are_the_same_whenever_they_are_read(faces: ImageFolder) -> None:
    masked = Masked(faces)
    first = pixels(masked)
    np.testing.assert_array_equal(masked.read(2), first[2])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(pixels(Masked(faces, seed=1)), first)
    assert (first != 117).any(axis=3).mean() > 0.15
    assert masked.labels.tolist() == [0, 0, 1]


def test_fingerprints_know_what_changes_pixels(faces: ImageFolder) -> None:
    sources = [Masked(faces), Masked(faces, seed=1), Masked(faces, shapes=("cup",)), Masked(faces, textures=("dots",))]
    assert len({source.fingerprint() for source in [faces, *sources]}) == 5
    assert Masked(faces).fingerprint() == sources[0].fingerprint()


def test_landmarks_move_the_mask(faces: ImageFolder, tmp_path: Path) -> None:
    points = "38 31 73 31 56 51 41 72 70 72"
    (tmp_path / "points.txt").write_text("".join(f"{faces.name(index)} {points}\n" for index in range(3)))
    masked = Masked(faces, landmarks=tmp_path / "points.txt")
    rows = (pixels(masked) != 117).any(axis=(0, 2, 3)).nonzero()[0]
    usual = (pixels(Masked(faces)) != 117).any(axis=(0, 2, 3)).nonzero()[0]
    assert abs((usual[0] - rows[0]) - 20) <= 2
    assert masked.fingerprint() != Masked(faces).fingerprint()
    (tmp_path / "points.txt").write_text(f"{faces.name(0)} {points}\n")
    with pytest.raises(DataError, match="has no landmarks of 2 of 3 images, the first is 'Ann/2.png'"):
        Masked(faces, landmarks=tmp_path / "points.txt")


def test_drawn_faces_know_their_landmarks(tmp_path: Path) -> None:
    spec = {"SyntheticFaces": {"identities": 12, "per_identity": 1, "size": 64, "cache": str(tmp_path)}}
    masked = build(SOURCES, {"Masked": {"source": spec}})
    inner = masked.source.landmarks  # type: ignore[attr-defined]
    changed = (pixels(masked) != pixels(masked.source)).any(axis=3)  # type: ignore[attr-defined]
    number, points = np.arange(12)[:, None], np.rint(inner).astype(int)
    hidden = changed[number, points[..., 1], points[..., 0]]
    assert hidden[:, 3:].all()
    assert hidden[:, :2].mean() < 0.2


def test_the_command_writes_the_same_names_or_nothing(faces: ImageFolder, tmp_path: Path) -> None:
    out = tmp_path / "masked"
    run = CliRunner().invoke(app, ["data", "mask", str(tmp_path / "faces"), str(out), "--shape", "ffp2", "--seed", "3"])
    assert run.exit_code == 0, run.output
    written = ImageFolder(out)
    assert [Path(written.name(row)).stem for row in range(3)] == [Path(faces.name(row)).stem for row in range(3)]
    expected = pixels(Masked(faces, shapes=("ffp2",), seed=3))
    assert np.abs(pixels(written).astype(int) - expected).mean() < 3  # JPEG
    again = CliRunner().invoke(app, ["data", "mask", str(tmp_path / "faces"), str(out)])
    assert isinstance(again.exception, DataError)
    wrong = CliRunner().invoke(app, ["data", "mask", str(tmp_path / "faces"), str(tmp_path / "new"), "--shape", "x"])
    assert "'surgical', 'cloth'" in str(wrong.exception)
    assert not (tmp_path / "new").exists()
