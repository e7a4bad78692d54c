"""Folders and archives of one folder a person, the people taken from them, and images at another size."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.formats import images
from facelab.data.formats.images import PathImages
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.resized import Resized, ResizedImages
from facelab.errors import ConfigError, CorruptImage, DataError


@pytest.fixture
def archive(faces: Path) -> Path:
    """The same people in a tar archive, one level deeper."""
    with tarfile.open(faces.parent / "faces.tar", "w") as tar:
        tar.add(faces, "aligned")
    return faces.parent / "faces.tar"


@pytest.mark.parametrize("kind", ["faces", "archive"])
def test_people_become_classes(kind: str, request: pytest.FixtureRequest, picture: Callable[..., np.ndarray]) -> None:
    source = SOURCES.build("ImageFolder", {"root": str(request.getfixturevalue(kind))})
    assert source.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert source.num_classes == 3
    for index, seed in enumerate((0, 10, 11, 20, 21, 22)):
        np.testing.assert_array_equal(source.read(index), picture(seed))
    assert source.location(5).endswith("p2/2.png")


def test_people_with_few_images_are_left_out(faces: Path) -> None:
    (faces / "p9").mkdir()
    source = ImageFolder(faces, min_images=2)
    assert source.people == ("p1", "p2")
    assert source.labels.tolist() == [0, 0, 1, 1, 1]
    assert ImageFolder(faces).num_classes == 3
    with pytest.raises(DataError, match="no folder of a person with 4 or more images"):
        ImageFolder(faces, min_images=4)
    with pytest.raises(ConfigError, match="min_images is 0"):
        ImageFolder(faces, min_images=0)


@pytest.mark.parametrize("kind", ["faces", "archive"])
def test_people_by_name(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(kind)
    names = tmp_path / "names.txt"
    names.write_text("p2\n\np0/\n")
    assert [who[-2:] for who in ImageFolder(root, ids=names).people] == ["p0", "p2"]
    assert [who[-2:] for who in ImageFolder(root, exclude_ids=names).people] == ["p1"]
    names.write_text("p2\nnobody\n")
    with pytest.raises(DataError, match=r"names\.txt line 2: there is no person 'nobody' in .* \(1 names"):
        ImageFolder(root, ids=names)
    assert ImageFolder(root, exclude_ids=names).num_classes == 2


def test_files_of_names_are_checked(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt: there is no such file"):
        ImageFolder(faces, ids=tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="names nobody"):
        ImageFolder(faces, ids=tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.txt:1: is not text in UTF-8 \(byte 0xff\); save the list as UTF-8"):
        ImageFolder(faces, exclude_ids=tmp_path / "binary.txt")


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_left_out_is_said(packed: bool, faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = (faces / "p0" / "0.png").read_bytes()
    for name in ("p1/x.JPE", "p2/x.jfif", "p3/2020/1.png", "p2/old/1.png", "stray.png", "p1/.hidden.png"):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(image)
    (faces / "p1" / "notes.txt").write_text("no image")
    (faces / "train.txt").write_text("a list beside the people")
    root = faces
    if packed:
        root = tmp_path / "faces.tar"
        with tarfile.open(root, "w") as tar:
            tar.add(faces, "set")
    source = ImageFolder(root)
    assert len(source) == 8
    assert source.num_classes == 3
    said = {record.getMessage().removeprefix(f"{root}: ").replace("set/", "") for record in caplog.records}
    beside = {"1 left out, images in no person's folder (first: 'stray.png')."}
    deeper = {"2 left out, images deeper than a person's folder (first: 'p2/old/1.png')."}
    others = {"1 left out, files without the ending of an image (first: 'p1/notes.txt')."}
    empty = set() if packed else {"1 left out, folders without an image of their own (first: 'p3')."}
    assert said == beside | deeper | others | empty


def test_the_first_of_those_left_out_is_that_in_the_order_of_names(
    faces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = (faces / "p0" / "0.png").read_bytes()
    for number in (9, 7, 3, 5, 1, 8, 2, 6, 4):  # a disk gives them in any order
        (faces / "p1" / "old" / str(number)).mkdir(parents=True)
        for name in ("c.png", "b.png", "a.png", "d.png"):
            (faces / "p1" / "old" / str(number) / name).write_bytes(image)
    ImageFolder(faces)
    assert [one.getMessage().partition("36 left out, ")[2] for one in caplog.records] == [
        "images deeper than a person's folder (first: 'p1/old/1/a.png')."
    ]


def test_leaving_out_people_who_are_not_there_is_said(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out.txt").write_text("p0\nq1\n")
    assert ImageFolder(faces, exclude_ids=tmp_path / "out.txt").people == ("p1", "p2")
    assert not caplog.records
    (tmp_path / "out.txt").write_text("q0\nq1\n")
    ImageFolder(faces, exclude_ids=tmp_path / "out.txt")
    assert "faces: none of the 2 people to leave out is in it, the first is 'q0'" in caplog.text


def test_an_image_beside_the_people_of_an_archive_is_refused(tmp_path: Path, faces: Path) -> None:
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        tar.add(faces / "p0" / "0.png", "0.png")
    with pytest.raises(DataError, match=r"holds no folder of a person .*: 1 left out, images in no person's folder"):
        ImageFolder(tmp_path / "flat.tar")


def test_a_corrupt_image_is_named(faces: Path) -> None:
    (faces / "p0" / "0.png").write_bytes(b"")
    with pytest.raises(CorruptImage, match=r"p0/0\.png: the image is empty"):
        ImageFolder(faces).read(0)


def test_fingerprint_follows_people(faces: Path) -> None:
    assert ImageFolder(faces).fingerprint() == ImageFolder(faces).fingerprint()
    assert ImageFolder(faces).fingerprint() != ImageFolder(faces, min_images=2).fingerprint()


def test_resized_source_keeps_labels(faces: Path) -> None:
    source = ImageFolder(faces)
    small = Resized(source, 6, 5)
    prints = {images.fingerprint() for images in (source, small, Resized(source, 5, 6), ResizedImages(source, 6, 6))}
    assert len(prints) == 4
    assert small.read(3).shape == (6, 5, 3)
    assert (small.num_classes, len(small), small.location(3)) == (3, 6, source.location(3))
    assert small.labels is source.labels
    np.testing.assert_array_equal(Resized(source, 12, 10).read(3), source.read(3))
    np.testing.assert_allclose(small.read(3)[0, 0], source.read(3)[:2, :2].mean((0, 1)), atol=1)
    assert Resized(source, 24, 20).read(3).shape == (24, 20, 3)
    assert small.fingerprint() != source.fingerprint()
    with pytest.raises(ConfigError, match="height is 0"):
        Resized(source, 0, 5)


def test_resized_images_without_labels(faces: Path) -> None:
    images = ResizedImages(PathImages(faces, ["p0/0.png"]), 4, 4)
    assert len(images) == 1
    assert images.read(0).shape == (4, 4, 3)


@pytest.mark.real
def test_lfw_people_with_five_or_more_images(shared_root: Path) -> None:
    source = ImageFolder(shared_root / "data" / "faces" / "lfw112.tar", min_images=5)
    assert (len(source), source.num_classes) == (5985, 423)


def test_an_image_is_searched_for_holes_the_first_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p0").mkdir()
    photo = bytes(cv2.imencode(".jpg", np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))[1])
    for number in range(2):
        (tmp_path / "p0" / f"{number}.jpg").write_bytes(photo)
    searched: list[bytes] = []
    monkeypatch.setattr(images, "has_hole", lambda data: bool(searched.append(data)))
    source = ImageFolder(tmp_path)
    for index in (0, 1, 0, -1):
        source.read(index)
    assert len(searched) == 2
    monkeypatch.setattr(images, "has_hole", lambda data: True)
    source.read(0)
    again = ImageFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(CorruptImage, match="has a hole"):
            again.read(0)
