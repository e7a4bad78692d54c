"""`facelab data …` as a user types it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from facelab.cli.main import app
from facelab.data.base import Source
from facelab.data.loading import reading_speed
from facelab.data.loading.reading_speed import Speed
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.packed import Packed
from facelab.errors import ConfigError, DataError


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``faces`` of three people with 1, 2 and 3 images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for person in range(3):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number in range(person + 1):
            pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            (tmp_path / "faces" / f"p{person}" / f"{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return tmp_path / "faces"


def run(*words: object) -> Result:
    """Run a command; errors of ours come through, as the main command expects them."""
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_then_pack_then_inspect(faces: Path) -> None:
    listed = run("list", faces)
    assert listed.exit_code == 0
    assert "6 of 6" in listed.output
    assert ImageList(faces, Path("train.txt")).num_classes == 3
    assert "5 of 6" in run("list", faces, "--min-images", 2, "--out", "some.txt").output
    packed = run("pack", "train.txt", "packed", "--root", faces, "--size", "8x6")
    assert packed.exit_code == 0
    assert "8x6" in packed.output
    assert Packed(Path("packed")).read(5).shape == (8, 6, 3)
    shown = run("inspect", "packed").output
    assert "Packed" in shown
    assert "1 to 3, median 2" in shown
    assert "8x6 (6)" in shown


def test_inspect_names_corrupt_images(faces: Path) -> None:
    (faces / "p1" / "1.png").write_bytes(b"x")
    shown = run("inspect", faces, "--decode", "--report", "corrupt.csv", "--workers", 1).output
    assert "p1/1.png: is not an image" in shown
    assert "p1/1.png" in Path("corrupt.csv").read_text()


def test_subset_exclude_and_shallow(faces: Path) -> None:
    Path("ids.txt").write_text("p1\np2\n")
    assert "5 of 6" in run("subset", faces, "--ids", "ids.txt", "--out", "two.txt").output
    Path("pairs.txt").write_text("1\t1\nP1\t1\t2\nP1\t1\tsomebody\t1\n")
    shown = run("exclude-overlap", "two.txt", "pairs.txt").output
    assert "pairs.txt: 1 of 2 people were in the training set" in shown
    assert Path("train-without-test.txt").read_text() == "p2/0.png 0\np2/1.png 0\np2/2.png 0\n"
    assert "4 of 5" in run("shallow", "two.txt", "--per-id", 2, "--seed", 3).output
    assert len(Path("shallow.txt").read_text().splitlines()) == 4


def test_records_there_and_back(faces: Path) -> None:
    assert run("to-rec", faces, "out/train.rec").exit_code == 0
    assert "RecordIO" in run("inspect", "out").output
    Path("out/train.idx").unlink()
    assert "train.idx" in run("index", "out/train.rec").output
    assert run("from-rec", "out/train.rec", "back").exit_code == 0
    assert (Path("back/p2/2.png")).read_bytes() == (faces / "p2" / "2.png").read_bytes()


def test_refusals_are_one_sentence(faces: Path) -> None:
    with pytest.raises(ConfigError, match=r"--size is '1x2x3', but must be a number such as 112"):
        run("pack", faces, "packed", "--size", "1x2x3")
    with pytest.raises(ConfigError, match=r"'x\.txt' must end in \.rec"):
        run("to-rec", faces, "x.txt")
    with pytest.raises(DataError, match="there is no such file or folder"):
        run("inspect", "nowhere")
    with pytest.raises(ConfigError, match=r"corrupt\.txt: a list of refused images is written as \.jsonl or \.csv"):
        run("inspect", "nowhere", "--report", "corrupt.txt")
    Path("train.txt").touch()
    with pytest.raises(DataError, match=r"train\.txt: exists already"):
        run("list", faces)


def test_bench_shows_speeds_by_workers_and_recommends(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {("threads", 1): 50.0, ("processes", 1): 900.0, ("threads", 2): 40.0, ("processes", 2): 1700.0}

    def measured(source: Source, workers: list[int], *_: object) -> list[Speed]:
        assert (len(source), workers) == (6, [1, 2])
        return [Speed(who, number, rate, rate / 1000) for (who, number), rate in rates.items()]  # type: ignore[arg-type]

    monkeypatch.setattr(reading_speed, "speeds", measured)
    lines = run("bench", faces, "--workers", 2, "--workers", 1).output.splitlines()
    assert [line.split() for line in lines if line.strip()[:1].isdigit()] == [
        ["1", "50", "0.05", "900", "0.90"],
        ["2", "40", "0.04", "1,700", "1.70"],
    ]
    assert lines[-1].startswith("data.workers=2 data.reader=processes is enough: 1,700 images/s on ")
    with pytest.raises(DataError, match="there is no such file or folder"):
        run("bench", "nothing")
