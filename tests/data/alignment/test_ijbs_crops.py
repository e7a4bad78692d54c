"""Crops of IJB-S from a tiny video: the right frames and boxes, resuming, and every refusal by its text."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.data.alignment.ijbs_crops import CropCutter, CropOptions, Cut, square_crop
from facelab.errors import ConfigError, DataError

HEADER = "SUBJECT_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT,FRAME_NUM\n"
LINES = (
    "1,videos/7.avi,8,8,16,16,9\n"
    "2,videos/7.avi,40,8,16,12,2\n"
    "1,videos/7.avi,8,8,16,16,2\n"
    "1,img/5.png,4,4,20,20,0\n"
    "2,videos/7.avi,40,8,16,16,40\n"  # the video has 12 frames
    "2,videos/7.avi,900,8,16,16,3\n"  # beyond the picture
)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(lines: str = HEADER + LINES, without: str = "") -> Path:
        """A raw root: a video of 12 frames of 64 x 48, the left half 20 n, the right half 240 - 20 n, and an image."""
        (tmp_path / "protocols").mkdir()
        (tmp_path / "protocols" / "ijbs_metadata.csv").write_text(lines)
        for folder in ("videos", "img"):
            (tmp_path / folder).mkdir()
        video = cv2.VideoWriter(str(tmp_path / "videos" / "7.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for number in range(12):
            frame = np.full((48, 64, 3), 20 * number, np.uint8)
            frame[:, 32:] = 240 - 20 * number
            video.write(frame)
        video.release()
        cv2.imwrite(str(tmp_path / "img" / "5.png"), np.full((30, 30, 3), 77, np.uint8))
        if without:
            (tmp_path / without).unlink()
        return tmp_path

    return make


def cut(root: Path, **options: object) -> dict[str, Cut]:
    cutter = CropCutter(root, root / "crops", CropOptions(workers=0, **options))  # type: ignore[arg-type]
    found = {one.file: one for one in cutter.cut()}
    assert sum(map(len, found.values())) == len(cutter)
    return found


def mean(path: Path) -> float:
    return float(cv2.imread(str(path)).mean())


def test_frames_and_boxes(make: Make) -> None:
    root = make()
    found = cut(root, margin=0.0, size=32)
    crops = sorted(str(path.relative_to(root / "crops")) for path in root.glob("crops/*/*.jpg"))
    assert crops == ["1/img_5.jpg", "1/videos_7_2.jpg", "1/videos_7_9.jpg", "2/videos_7_2.jpg"]
    expected = {"1/img_5.jpg": 77, "1/videos_7_2.jpg": 40, "1/videos_7_9.jpg": 180, "2/videos_7_2.jpg": 200}
    for name, value in expected.items():
        assert cv2.imread(str(root / "crops" / name)).shape == (32, 32, 3)
        assert mean(root / "crops" / name) == pytest.approx(value, abs=4)
    video = found["videos/7.avi"]
    assert (video.written, video.present, found["img/5.png"].written) == (3, 0, 1)
    assert [(entry.location, entry.reason[:10]) for entry in video.refused] == [
        ("videos/7.avi: 2/videos_7_3.jpg", "its box [9"),
        ("videos/7.avi: 2/videos_7_40.jpg", "its frame "),
    ]


def test_numbers_from_one(make: Make) -> None:
    root = make()
    cut(root, margin=0.0, first_frame=1)
    assert mean(root / "crops" / "1" / "videos_7_9.jpg") == pytest.approx(160, abs=4)


def test_an_interrupted_run_goes_on(make: Make) -> None:
    root = make()
    cut(root)
    kept, lost = root / "crops" / "1" / "videos_7_2.jpg", root / "crops" / "1" / "videos_7_9.jpg"
    kept.write_bytes(b"kept")
    lost.unlink()
    found = cut(root)
    assert (found["videos/7.avi"].written, found["videos/7.avi"].present) == (1, 2)
    assert kept.read_bytes() == b"kept"
    assert lost.stat().st_size > 100
    with pytest.raises(DataError, match=r"was cut with .*112.*, not .*64.*; write to another folder"):
        cut(root, size=64)


def test_damaged_videos_and_images_are_counted(make: Make) -> None:
    root = make(HEADER + "1,videos/7.avi,8,8,16,16,9\n1,img/5.png,4,4,20,20,0\n")
    (root / "videos" / "7.avi").write_bytes(b"no video")
    (root / "img" / "5.png").write_bytes(b"no image")
    found = cut(root)
    assert [entry.reason for one in found.values() for entry in one.refused] == ["its frame cannot be read."] * 2


def test_squares() -> None:
    image = np.arange(10 * 8 * 3, dtype=np.uint8).reshape(10, 8, 3)
    inside = square_crop(image, np.array([2.0, 3.0, 4.0, 2.0]), 0.0)
    assert inside is not None
    np.testing.assert_array_equal(inside, image[2:6, 2:6])
    beyond = square_crop(image, np.array([-1.0, -1.0, 4.0, 4.0]), 0.5)
    assert beyond is not None
    assert beyond.shape == (8, 8, 3)
    np.testing.assert_array_equal(beyond[3:, 3:], image[:5, :5])
    assert not beyond[:3].any()
    assert square_crop(image, np.array([20.0, 3.0, 4.0, 4.0]), 0.5) is None
    assert square_crop(image, np.array([2.0, 3.0, 0.0, 4.0]), 0.5) is None


@pytest.mark.parametrize(
    ("lines", "without", "message"),
    [
        (
            HEADER + LINES,
            "videos/7.avi",
            r"1 of 2 videos and images are missing, the first is 'videos/7.avi', .*csv:2 n",
        ),
        (HEADER + LINES, "img/5.png", r"the first is 'img/5.png', which .*metadata.csv:5 names"),
        (HEADER + LINES, "protocols/ijbs_metadata.csv", "there is no ijbs_metadata.csv or cs6_metadata.csv"),
        ("S,F,X\n1,videos/7.avi,3\n", "", "csv:1: has no column 'FACE_X', but s, f, x; name those of x, y, width"),
        (
            HEADER + "1,videos/7.avi,a,2,3,4,5\n",
            "",
            "csv:2: expected five numbers for x, y, width, height, frame, got a,",
        ),
        (HEADER + "1,videos/7.avi,1,2,3\n", "", "csv:2: expected five numbers .* got 1, 2, 3, nothing, nothing"),
        (HEADER + "1,videos/7.avi,1,2,3,4,1.5\n", "", "csv:2: a box must be finite and a frame a whole number"),
        (HEADER + "1,videos/7.avi,1,2,3,4,1e300\n", "", "csv:2: a box must be finite and a frame a whole number"),
        (HEADER + "1,videos/7.avi,nan,2,3,4,1\n", "", "csv:2: a box must be finite"),
        (HEADER + "1,7.avi,1,2,3,4,1\n", "", "csv:2: expected 'videos/<name>.mp4'"),
        (HEADER, "", "the list is empty"),
    ],
)
def test_refusals(make: Make, lines: str, without: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cut(make(lines, without))


def test_options_out_of_range(make: Make) -> None:
    with pytest.raises(ConfigError, match="size is 8"):
        CropOptions(size=8)
    with pytest.raises(ConfigError, match="names 2 columns, but five are needed"):
        cut(make(), columns=("a", "b"))


def test_command(make: Make) -> None:
    root = make(HEADER.replace("FACE_X", "LEFT") + LINES)
    names = "left,face_y,face_width,face_height,frame_num"
    result = CliRunner().invoke(app, ["data", "ijbs-crops", str(root), "--columns", names, "--size", "48"])
    assert result.exit_code == 0, result.output
    assert "4 of 6 faces cut, in" in result.output
    assert "2 could not be cut, listed in" in result.output
    assert len((root / "crops" / "refused.csv").read_text().splitlines()) == 3
    again = CliRunner().invoke(app, ["data", "ijbs-crops", str(root), "--columns", names, "--size", "48"])
    assert "0 of 6 faces cut, 4 were there, in" in again.output
