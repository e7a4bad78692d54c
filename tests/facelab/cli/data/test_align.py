"""``facelab data align``: faces land on the template, nothing is overwritten, refusals are counted and named."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from facelab.cli.data.align import align_command
from facelab.data.alignment.alignment import ARCFACE_112, align
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError, FacelabError

FACE = ARCFACE_112 * 1.5 + [20, 10]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (200, 210, 3), dtype=np.uint8)


def line(name: str, points: np.ndarray = FACE) -> str:
    return f"{name} {' '.join(str(number) for number in points.ravel())}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``images/a/1.png``, ``images/a/2.png``, ``images/b.png``, and ``points.txt`` for them."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    names = ["a/1.png", "a/2.png", "b.png"]
    for seed, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "images" / name), picture(seed)[..., ::-1])
    (tmp_path / "points.txt").write_text("".join(map(line, names)))
    return tmp_path


def run(folder: Path, *more: str, images: str = "images", ok: bool = True) -> str:
    app = typer.Typer()
    app.command()(align_command)
    words: Sequence[str] = [
        str(folder / images), "--landmarks", str(folder / "points.txt"), "--out", str(folder / "out"), *more,
    ]  # fmt: skip
    result: Result = CliRunner().invoke(app, words)
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert (result.exit_code == 0) == ok, result.output
    return result.output


def read(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path))[..., ::-1])


def test_aligned_images_keep_their_names(folder: Path) -> None:
    output = run(folder)
    assert f"3 of 3 faces aligned to 112x112, in {folder / 'out'}" in output
    found = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())
    assert found == ["a/1.png", "a/2.png", "alignment.json", "b.png"]
    assert np.array_equal(read(folder / "out" / "a" / "2.png"), align(picture(1), FACE))


def test_size_form_and_jpeg(folder: Path) -> None:
    run(folder, "--size", "120", "--form", "resized", "--format", "jpg", "--quality", "100")
    found = read(folder / "out" / "b.jpg")
    assert found.shape == (120, 120, 3)
    expected = align(picture(2), FACE, 120, "resized")
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).ravel() for image in (np.ascontiguousarray(found), expected)]
    assert np.corrcoef(*grey)[0, 1] > 0.97  # JPEG halves the resolution of colour only


def test_images_in_a_tar_archive(folder: Path) -> None:
    with tarfile.open(folder / "images.tar", "w") as archive:
        archive.add(folder / "images", "")
    run(folder, images="images.tar")
    assert np.array_equal(read(folder / "out" / "b.png"), align(picture(2), FACE))


def test_existing_files_are_kept_unless_asked(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "b.png").write_text("mine")
    with pytest.raises(DataError, match=r"b.png: exists \(1 of 3 do\); .* --overwrite"):
        run(folder)
    assert (folder / "out" / "b.png").read_text() == "mine"
    assert not (folder / "out" / "a").exists()
    run(folder, "--overwrite")
    assert read(folder / "out" / "b.png").shape == (112, 112, 3)


def test_error_stops_at_the_first_bad_image(folder: Path) -> None:
    (folder / "images" / "a" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="a/2.png: is not an image"):
        run(folder)


def test_missing_images_are_found_before_the_work(folder: Path) -> None:
    (folder / "images" / "b.png").unlink()
    with pytest.raises(DataError, match="1 of 3 images with landmarks are missing, the first is 'b.png'"):
        run(folder)
    assert not (folder / "out").exists()


def test_skip_counts_and_lists(folder: Path) -> None:
    (folder / "images" / "a" / "2.png").write_bytes(b"no image")
    same = np.full((5, 2), 7.0)
    text = line("a/1.png") + line("a/2.png") + line("b.png", same) + line("gone.png")
    (folder / "points.txt").write_text(text)
    output = run(folder, "--on-error", "skip")
    assert "1 of 4 faces aligned" in output
    assert f"3 refused, listed in {folder / 'out' / 'refused.csv'}; the first: " in output
    rows = (folder / "out" / "refused.csv").read_text().splitlines()
    assert len(rows) == 4
    assert "b.png: the landmarks lie within 0 pixels of each other" in rows[2]
    assert "gone.png" in rows[3]
    (folder / "out" / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"refused.csv: exists"):
        run(folder, "--on-error", "skip")


def test_nothing_aligned_at_all(folder: Path) -> None:
    (folder / "points.txt").write_text(line("gone.png"))
    assert "0 of 1 faces aligned" in run(folder, "--on-error", "skip")
    assert (folder / "out" / "refused.csv").exists()


def test_two_images_never_become_one(folder: Path) -> None:
    (folder / "images" / "b.bmp").write_bytes((folder / "images" / "a" / "1.png").read_bytes())
    (folder / "points.txt").write_text(line("b.png") + line("b.bmp") + line("a/1.png"))
    run(folder)
    made = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*.png"))
    assert made == ["a/1.png", "b.bmp.png", "b.png.png"]
    assert (read(folder / "out" / "b.bmp.png") == read(folder / "out" / "a" / "1.png")).all()


def test_the_originals_are_safe(folder: Path) -> None:
    with pytest.raises(DataError, match="is the folder of the images themselves"):
        run(folder, "--out", str(folder / "images"), "--overwrite")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--size", "8", "8x8 pixels are too small"),
        ("--quality", "80", r"quality is 80, but must lie in \[95, 100\]"),
        ("--workers", "-1", "workers is -1"),
    ],
)
def test_refused_options(folder: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(folder, option, value)


def test_unwritable_folder(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a").write_text("a file where a folder is needed")
    with pytest.raises(DataError, match=r"out/a/1.png: cannot be written"):
        run(folder)


def test_the_alignment_is_written_beside_the_images(folder: Path) -> None:
    from facelab.data.formats.images import PathImages

    run(folder, "--size", "120")
    assert PathImages(folder / "out", ["a/1.png"]).alignment.startswith("ArcFace scaled 120, template ")
    (folder / "points.txt").write_text(line("b.png"))
    (folder / "out" / "b.png").unlink()
    with pytest.raises(DataError, match="were aligned otherwise"):
        run(folder)


def test_landmarks_in_another_order_are_refused_and_single_ones_said(folder: Path) -> None:
    swapped = FACE[:, ::-1]
    (folder / "points.txt").write_text(line("a/1.png", swapped) + line("a/2.png") + line("b.png"))
    assert "1 have landmarks like no face, the first is 'a/1.png'; their order must be left eye" in run(folder)
    (folder / "points.txt").write_text(line("a/1.png", swapped) + line("a/2.png", swapped) + line("b.png"))
    with pytest.raises(DataError, match=r"a/1\.png: no face has its landmarks like this, nor do 1 others of 3"):
        run(folder, "--overwrite", "--on-error", "skip")


def test_landmarks_and_a_choice_of_faces_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--landmarks says where the faces are; --detector, .* are for photos w"):
        run(folder, "--select", "all")


@pytest.mark.usefixtures("face_models")
def test_without_landmarks_a_detector_finds_the_faces(tmp_path: Path) -> None:
    face = SyntheticFaces(identities=6, per_identity=1, size=112, split="test").read(5)
    photo = np.full((200, 260, 3), (150, 160, 170), np.uint8)
    photo[40:152, 100:212] = face
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "one.png"), photo[..., ::-1])
    cv2.imwrite(str(tmp_path / "photos" / "two.png"), photo[30:90, :90])
    app = typer.Typer()
    app.command()(align_command)
    words = [str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--on-missing", "skip"]
    for before in ("", "2 of the photos had been done before\n"):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert f"1 faces of 2 photos aligned to 112x112, in {tmp_path / 'out'}\n{before}1 refused" in result.output
    assert np.abs(read(tmp_path / "out" / "one.png").astype(int) - face).mean() < 25  # drawn on the template itself
    record = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert record["detection"]["detector"] == "yunet"
    assert [model["name"] for model in record["detection"]["models"]][1] == "onet.onnx"
    assert record["detection"]["options"] == {"refine": True, "longest": 640, "min_score": 0.6, "thorough": False}
    changed = CliRunner().invoke(app, [*words, "--option", "longest=320"])
    assert isinstance(changed.exception, DataError)
    unknown = CliRunner().invoke(app, [*words, "--option", "size=320"])
    assert "detector 'yunet' has no option 'size'" in str(unknown.exception)
