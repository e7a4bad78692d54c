"""What is known of an alignment travels with the images, also in an archive and through wrappers."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.data.formats.alignment_record import FILE, AlignmentRecord, joined_alignment
from facelab.data.formats.images import PathImages
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.packed import write_packed
from facelab.data.sources.resized import Resized, ResizedImages
from facelab.data.synthetic.source import LowResolution
from facelab.errors import DataError


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((8, 8, 3), np.uint8))
    return folder


@pytest.fixture
def record(tmp_path: Path) -> AlignmentRecord:
    (tmp_path / "points.txt").write_text("a.png 1 2 3 4 5 6 7 8 9 10\n")
    return AlignmentRecord.of(112, "scaled", tmp_path / "points.txt")


def test_it_is_unknown_until_somebody_wrote_it_down(faces: Path, record: AlignmentRecord) -> None:
    assert PathImages(faces, ["a.png"]).alignment == "unknown"
    record.write(faces)
    images = PathImages(faces, ["a.png"])
    assert images.alignment.startswith("ArcFace scaled 112, template ")
    assert ResizedImages(images, 4, 4).alignment == LowResolution(images, 4).alignment == images.alignment


def test_it_is_found_in_an_archive(faces: Path, record: AlignmentRecord, tmp_path: Path) -> None:
    record.write(faces)
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        archive.add(faces, ".")
    assert PathImages(tmp_path / "faces.tar", ["a.png"]).alignment == record.describe()


def test_sources_carry_it_whatever_they_are_made_of(record: AlignmentRecord, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    for person in "ab":
        (crops / person).mkdir(parents=True)
        cv2.imwrite(str(crops / person / "0.png"), np.zeros((8, 8, 3), np.uint8))
    (crops / "train.txt").write_text("a/0.png 0\nb/0.png 1\n")
    assert ImageFolder(crops).alignment == "unknown"
    record.write(crops)
    with tarfile.open(tmp_path / "crops.tar", "w") as archive:
        archive.add(crops, "crops")  # as most people pack: with the folder around it
    plain = {"ImageFolder": {"root": str(crops)}}
    write_packed(tmp_path / "packed", ImageFolder(crops))
    sources = (
        plain,
        {"ImageFolder": {"root": str(tmp_path / "crops.tar")}},
        {"ImageList": {"root": str(crops), "list_file": str(crops / "train.txt")}},
        {"Packed": {"path": str(tmp_path / "packed")}},
        {"Concat": {"sources": [plain, plain]}},
        {"Subset": {"source": plain, "images": str(crops / "train.txt")}},
        {"Degraded": {"source": plain}},
    )
    assert {build(SOURCES, source).alignment for source in sources} == {record.describe()}
    assert Resized(ImageFolder(crops), 4, 4).alignment == record.describe()
    below = ["crops/a/0.png", "crops/b/0.png"]
    assert PathImages(tmp_path / "crops.tar", below).alignment == PathImages(tmp_path, below).alignment
    with tarfile.open(tmp_path / "deep.tar", "w") as archive:
        archive.add(crops / "a" / "0.png", "d/" * 1500 + "a/0.png")
    assert ImageFolder(tmp_path / "deep.tar").alignment == "unknown"
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((8, 8, 3), np.uint8))
    assert PathImages(tmp_path, [*below, "other.png"]).alignment == "unknown"


def test_template_and_landmarks_both_show(tmp_path: Path, record: AlignmentRecord) -> None:
    (tmp_path / "others.txt").write_text("a.png 1 2 3 4 5 6 7 8 9 11\n")
    others = [
        AlignmentRecord.of(112, "scaled", tmp_path / "others.txt"),
        AlignmentRecord.of(120, "scaled", tmp_path / "points.txt"),
        AlignmentRecord.of(120, "resized", tmp_path / "points.txt"),
    ]
    assert len({entry.describe() for entry in (record, *others)}) == 4
    assert others[1].template_hash != others[2].template_hash


def test_two_alignments_in_one_folder_are_refused(faces: Path, record: AlignmentRecord, tmp_path: Path) -> None:
    record.write(faces)
    record.refuse_other(faces)
    other = AlignmentRecord.of(120, "scaled", tmp_path / "points.txt")
    with pytest.raises(
        DataError, match=r"alignment\.json: the images there were aligned otherwise \(ArcFace scaled 112"
    ):
        other.refuse_other(faces)


def test_a_file_that_says_something_else_is_refused(faces: Path) -> None:
    (faces / FILE).write_text('{"template": "ArcFace"}')
    with pytest.raises(DataError, match=r"alignment\.json: does not describe an alignment"):
        PathImages(faces, ["a.png"])


@pytest.mark.parametrize("name", ["\x1b[31m", "two\nlines", "x" * 1000])
def test_what_cannot_be_a_line_of_a_report_is_refused(faces: Path, record: AlignmentRecord, name: str) -> None:
    record.model_copy(update={"template": name}).write(faces)
    with pytest.raises(DataError, match=r"alignment\.json: does not describe an alignment"):
        PathImages(faces, ["a.png"])


def test_sets_that_were_aligned_differently_say_both() -> None:
    assert joined_alignment(["x", "x"]) == "x"
    assert joined_alignment(["x", "unknown"]) == "x + unknown"
    assert joined_alignment([]) == "unknown"


def test_landmarks_come_from_a_file_or_a_detector(record: AlignmentRecord) -> None:
    with pytest.raises(ValidationError, match="either landmarks_hash or detection must be given"):
        AlignmentRecord(form="scaled", size=112, template_hash=record.template_hash)
