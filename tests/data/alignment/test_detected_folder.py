"""Folders of photos -> folders of aligned faces: odd photos, interruptions, and what is refused."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facelab.data.alignment.align_files import AlignOptions
from facelab.data.alignment.alignment import ARCFACE_112, align
from facelab.data.alignment.detected_folder import DetectedFolder, align_photos
from facelab.data.alignment.face_journal import PhotoEntry
from facelab.data.alignment.photo_aligner import FaceChoice, NoFace, PhotoAligner
from facelab.data.alignment.photos import open_photos
from facelab.data.base import Pixels
from facelab.data.detection.base import Detector, Faces
from facelab.data.formats.alignment_record import read_alignment
from facelab.data.formats.images import PathImages
from facelab.data.formats.open_files import open_files
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.weights.temporary import HOST


class Dots(Detector):
    """Finds a face around every bright patch."""

    def find(self, image: Pixels) -> Faces:
        bright = (image.mean(axis=2) > 200).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:count]], np.float64).reshape(-1, 4)
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        return Faces(boxes, np.linspace(0.9, 0.5, len(boxes)), boxes[:, None, :2] + ARCFACE_112 / 112 * sides)


def photo(*places: tuple[int, int, int], height: int = 120, width: int = 160) -> Pixels:
    """A dark photo with bright squares (left, top, side)."""
    pixels = np.random.default_rng(0).integers(0, 90, (height, width, 3), dtype=np.uint8)
    for left, top, side in places:
        pixels[top : top + side, left : left + side] = 250
    return pixels


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``photos`` with one face in ``Ann/1.png``, three in ``Ann/2.png``, none in ``none.png``."""
    save(tmp_path / "photos" / "Ann" / "1.png", photo((40, 30, 50)))
    save(tmp_path / "photos" / "Ann" / "2.png", photo((10, 10, 20), (60, 40, 30), (100, 70, 40)))
    save(tmp_path / "photos" / "none.png", photo())
    return tmp_path


def run(
    folder: Path,
    choice: FaceChoice | None = None,
    options: AlignOptions | None = None,
    *,
    source: str = "photos",
    out: str = "out",
    stop_after: int | None = None,
) -> DetectedFolder:
    chosen = FaceChoice(on_missing="skip") if choice is None else choice
    aligner = PhotoAligner(Dots(), chosen)

    def watch(entries: Iterator[PhotoEntry], _: int) -> Iterable[PhotoEntry]:
        for number, entry in enumerate(entries):
            if number == stop_after:
                raise KeyboardInterrupt
            yield entry

    how = AlignOptions() if options is None else options
    return align_photos(
        open_photos(folder / source), aligner, aligner.record("dots", {}, "png"), folder / out, how, watch
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_any_depth_becomes_crops_a_record_and_a_journal(folder: Path) -> None:
    made = run(folder)
    assert (made.photos, made.crops, made.several, made.refused.count, made.before) == (3, 2, 1, 1, 0)
    assert sorted(contents(folder / "out")) == [
        "Ann/1.png", "Ann/2.png", "alignment.json", "faces.jsonl", "refused.csv"
    ]  # fmt: skip
    points = ARCFACE_112 / 112 * 50 + (40, 30)
    crop = cv2.imread(str(folder / "out" / "Ann" / "1.png"))[..., ::-1]
    assert (crop == align(photo((40, 30, 50)), points)).all()
    first, _, third = map(json.loads, (folder / "out" / "faces.jsonl").read_text().splitlines())
    assert first["photo"] == "Ann/1.png"
    assert first["faces"][0]["box"] == [40.0, 30.0, 90.0, 80.0]
    assert np.allclose(first["faces"][0]["points"], points, atol=1e-3)
    assert (
        "none.png: no face of 10 pixels or more was found in the photo of 120x160 (height x width)" in third["refused"]
    )
    assert "no face of 10 pixels" in (folder / "out" / "refused.csv").read_text()
    described = read_alignment(open_files(folder / "out"))
    assert "detector dots ()" in described
    assert "largest of the faces from 10 pixels, without one skip, png, OpenCV" in described


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(folder: Path) -> None:
    for number in range(3, 9):
        save(folder / "photos" / f"{number}.png", photo((30, 30, 30 + number)))
    run(folder, out="whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder, stop_after=4)
    journal = folder / "out" / "faces.jsonl"
    with journal.open("a") as file:
        file.write('{"photo": "Ann/')  # cut off
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (folder / "out" / "Ann" / f".2.png.{HOST}-{ended.pid}.part").touch()
    assert run(folder).before == 4
    assert contents(folder / "out") == contents(folder / "whole")
    again = run(folder)
    assert (again.before, again.crops, again.refused.count) == (9, 8, 1)
    assert contents(folder / "out") == contents(folder / "whole")


def test_new_photos_are_added_and_replaced_ones_done_again(folder: Path) -> None:
    run(folder, FaceChoice("all", on_missing="skip"))
    assert (folder / "out" / "Ann" / "2_2.png").is_file()
    save(folder / "photos" / "Ann" / "2.png", photo((60, 40, 45)))
    save(folder / "photos" / "A.png", photo((60, 40, 45)))
    (folder / "out" / "Ann" / "1_0.png").unlink()
    made = run(folder, FaceChoice("all", on_missing="skip"))
    assert (made.before, made.crops) == (1, 3)
    run(folder, FaceChoice("all", on_missing="skip"), out="whole")
    assert contents(folder / "out") == contents(folder / "whole")


def test_photos_that_differ_in_their_endings_alone_keep_them(folder: Path) -> None:
    run(folder)
    save(folder / "photos" / "Ann" / "1.bmp", photo((60, 40, 45)))  # a namesake that comes later
    assert run(folder).before == 2
    run(folder, out="whole")
    assert contents(folder / "out") == contents(folder / "whole")
    images = PathImages(folder / "out", ["Ann/1.bmp", "Ann/1.png", "Ann/2.jpg"])  # lists name the photos
    assert [images.name(row) for row in range(3)] == ["Ann/1.bmp.png", "Ann/1.png.png", "Ann/2.png"]
    assert (images.read(0) == align(photo((60, 40, 45)), ARCFACE_112 / 112 * 45 + (60, 40))).all()
    (folder / "photos" / "Ann" / "1.bmp").unlink()
    run(folder)
    assert (folder / "out" / "Ann" / "1.png").is_file()
    assert not (folder / "out" / "Ann" / "1.png.png").exists()


@pytest.mark.parametrize(("select", "lefts"), [("largest", [100]), ("centre", [60]), ("all", [100, 60, 10])])
def test_which_faces_of_a_photo_are_taken(folder: Path, select: str, lefts: list[int]) -> None:
    run(folder, FaceChoice(select, on_missing="skip"))  # type: ignore[arg-type]
    entry = json.loads((folder / "out" / "faces.jsonl").read_text().splitlines()[1])
    assert entry["found"] == 3
    assert [face["box"][0] for face in entry["faces"]] == lefts


def test_small_faces_are_none(folder: Path) -> None:
    run(folder, FaceChoice("all", min_size=25, on_missing="skip"))
    entry = json.loads((folder / "out" / "faces.jsonl").read_text().splitlines()[1])
    assert [face["box"][0] for face in entry["faces"]] == [100, 60]


def test_what_becomes_of_a_photo_without_a_face(folder: Path) -> None:
    with pytest.raises(NoFace, match=r"none\.png: no face of 10 pixels or more was found in the photo of 120x160 "):
        run(folder, FaceChoice(on_missing="error"), out="a")
    made = run(folder, FaceChoice(on_missing="centre_crop"), out="b")
    assert (made.centred, made.crops, made.refused.count) == (1, 3, 0)
    expected = cv2.resize(photo()[:, 20:140], (112, 112), interpolation=cv2.INTER_AREA)
    assert (cv2.imread(str(folder / "b" / "none.png"))[..., ::-1] == expected).all()
    assert not (folder / "b" / "refused.csv").exists()


def test_odd_photos(tmp_path: Path) -> None:
    pixels = photo((40, 30, 50))
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "grey.png"), pixels[..., 1])
    cv2.imwrite(str(photos / "alpha.png"), np.dstack([pixels, np.full((120, 160), 9, np.uint8)]))
    cv2.imwrite(str(photos / "deep.png"), pixels.astype(np.uint16) * 257)
    picture = Image.fromarray(pixels)
    picture.quantize(200).save(photos / "palette.png")
    picture.convert("CMYK").save(photos / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.jpg", exif=exif, quality=95)
    save(photos / "tiny.png", photo(height=1, width=1))
    save(photos / "ten.png", photo(*((10 + 30 * (i % 5), 10 + 50 * (i // 5), 20 + i) for i in range(10)), width=180))
    (photos / "corrupt.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (photos / "empty.png").write_bytes(b"")
    (photos / "notes.txt").write_text("no photo")
    small = (photos / "grey.png").read_bytes()
    (photos / "huge.png").write_bytes(small[:16] + (20000).to_bytes(4, "big") * 2 + small[24:])

    with pytest.raises(CorruptImage, match=r"corrupt\.jpg"):
        run(tmp_path, out="stopped")
    made = run(tmp_path, options=AlignOptions(on_error="skip"))
    assert made.photos == 11
    refused = sorted(entry.location for entry in made.refused.entries)
    assert refused == ["corrupt.jpg", "empty.png", "huge.png", "tiny.png"]
    expected = cv2.imread(str(tmp_path / "out" / "alpha.png")).astype(int)
    for name in ("grey", "deep", "palette", "cmyk", "turned"):
        crop = cv2.imread(str(tmp_path / "out" / f"{name}.png")).astype(int)
        assert np.abs(crop - expected).mean() < (25 if name == "grey" else 12), name
    assert "more than the 67,108,864 pixels that are decoded" in (tmp_path / "out" / "refused.csv").read_text()


def test_archives_and_lists_give_what_the_folder_gives(folder: Path) -> None:
    run(folder)
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", ".")
    (folder / "photos" / "list.txt").write_text("Ann/2.png 1\nAnn/1.png\n\nnone.png 0\n")
    for number, source in enumerate(("photos.tar", "photos/list.txt")):
        run(folder, source=source, out=f"out{number}")
        crops = {name: data for name, data in contents(folder / f"out{number}").items() if name.endswith(".png")}
        assert crops == {name: data for name, data in contents(folder / "out").items() if name.endswith(".png")}


def test_files_that_are_no_photos_by_their_endings_are_counted(folder: Path) -> None:
    for name in ("photos/Ann/3.heic", "photos/Ann/4.heic", "photos/Ann/.hidden", "phone/1.heic"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    left_out = "2 left out, files without the ending of an image (first: 'Ann/3.heic')."
    assert open_photos(folder / "photos").left_out == (f"{folder / 'photos'}: {left_out}",)
    with pytest.raises(DataError, match=r"phone: there is no image\. .*phone: 1 left out, .*'1\.heic'\)\.$"):
        open_photos(folder / "phone")


def test_names_in_a_list_may_end_in_numbers(folder: Path) -> None:
    save(folder / "photos" / "x.png", photo())
    (folder / "photos" / "x.png").rename(folder / "photos" / "x 7")
    (folder / "photos" / "list").write_text("x 7\nAnn/1.png 7\n")
    assert open_photos(folder / "photos" / "list").names == ("x 7", "Ann/1.png")
    (folder / "photos" / "list").write_text("../x.png\n")
    with pytest.raises(DataError, match=r"list:1: '\.\./x\.png' is not a path below the folder of the images"):
        open_photos(folder / "photos" / "list")


@pytest.mark.parametrize("instead", ["skip", "centre_crop"])
def test_a_folder_that_stopped_at_a_photo_without_a_face_goes_on_by_another_answer(folder: Path, instead: str) -> None:
    with pytest.raises(NoFace):
        run(folder, FaceChoice(on_missing="error"))
    made = run(folder, FaceChoice(on_missing=instead))  # type: ignore[arg-type]
    assert made.before > 0
    run(folder, FaceChoice(on_missing=instead), out="whole")  # type: ignore[arg-type]
    assert contents(folder / "out") == contents(folder / "whole")
    with pytest.raises(DataError, match=f"aligned otherwise .*without one {instead}"):
        run(folder, FaceChoice(on_missing="error"))


def test_refused_before_anything_is_written(folder: Path) -> None:
    run(folder)
    with pytest.raises(DataError, match=r"alignment\.json: the images there were aligned otherwise \(.*largest.*skip"):
        run(folder, FaceChoice("centre", on_missing="skip"))
    run(folder, FaceChoice("centre", on_missing="skip"), AlignOptions(overwrite=True))
    (folder / "other").mkdir()
    (folder / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="other: is not empty; write to another folder, or allow it with --overwrite"):
        run(folder, out="other")
    with pytest.raises(DataError, match="lies in the folder of the photos; write to another"):
        run(folder, out="photos/crops")
    (folder / "bare").mkdir()
    with pytest.raises(DataError, match="bare: there is no image"):
        open_photos(folder / "bare")
    for namesake in ("none.jpg", "none.png.bmp"):
        save(folder / "photos" / namesake, photo())
    with pytest.raises(DataError, match=r"'none\.png' and 'none\.png\.bmp' would both become .*none\.png; rename one"):
        run(folder, out="new")
    assert not (folder / "new").exists()


def test_a_damaged_journal_is_named(folder: Path) -> None:
    run(folder)
    (folder / "out" / "faces.jsonl").write_text('{"photo": 3}\n')
    with pytest.raises(DataError, match=r"faces\.jsonl:1: does not say what became of a photo; begin anew"):
        run(folder)
    mine = folder / "mine.txt"
    mine.write_text("not a crop")
    for crop in ("../mine.txt", str(mine)):
        entry = {"photo": "Ann/1.png", "bytes": 1, "faces": [{"crop": crop}]}
        (folder / "out" / "faces.jsonl").write_text(json.dumps(entry) + "\n")
        with pytest.raises(DataError, match=r"faces\.jsonl:1: does not say what became of a photo"):
            run(folder)
    assert mine.exists()


def test_choices_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"select is 'big'.* Known: largest, centre, all"):
        FaceChoice("big")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"on_missing is 'center_crop'.* Did you mean 'centre_crop'"):
        FaceChoice(on_missing="center_crop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_size is 0, but must lie in"):
        FaceChoice(min_size=0)
