"""`facelab data doctor`, and the list that `facelab data subset` takes from it."""

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner, Result

from facelab.cli.data.doctor import doctor_command
from facelab.cli.main import app
from facelab.data.sources.image_list import ImageList
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn faces of four people, one file of which is broken and one a copy."""
    monkeypatch.chdir(tmp_path)
    drawn = SyntheticFaces(4, 3, 32, cache=tmp_path / "cache")
    for row in range(len(drawn)):
        path = tmp_path / "faces" / f"p{row // 3}" / f"{row % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), drawn.read(row)[..., ::-1])
    (tmp_path / "faces" / "p0" / "1.png").write_bytes(b"x")
    (tmp_path / "faces" / "p1" / "copy.png").write_bytes((tmp_path / "faces" / "p1" / "0.png").read_bytes())
    return tmp_path / "faces"


def run(*words: object) -> Result:
    assert doctor_command  # its module names the command
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_from_a_set_to_a_list_without_its_errors(faces: Path) -> None:
    told = run("doctor", faces, "--workers", 1, "--detector", "none").output
    assert "Unreadable" in told
    assert "11 of 13 images stay in keep.txt." in told
    assert "Alignment was not checked: so it was asked for by --detector none." in told
    shown = run("subset", faces, "--list", "doctor/keep.txt", "--out", "clean.txt").output
    assert "11 of 13" in shown
    kept = ImageList(faces, Path("clean.txt"))
    assert kept.num_classes == 4
    assert {"p0/1.png", "p1/copy.png"} & {kept.name(row) for row in range(len(kept))} == set()
    assert (
        run(
            "doctor", "clean.txt", "--root", faces, "--out", "again", "--scorer", "none", "--detector", "none"
        ).exit_code
        == 0
    )
    again = json.loads(Path("again/doctor.json").read_text())
    assert again["kept"] == 11
    assert Path("doctor/doctor.html").read_text().count("<h2") >= 2


def test_the_user_says_what_is_left_out(faces: Path) -> None:
    told = run("doctor", faces, "--workers", 1, "--drop", "unreadable", "--shown", 0, "--detector", "none").output
    assert "12 of 13 images stay" in told


def test_refusals_come_before_the_work(faces: Path) -> None:
    with pytest.raises(ConfigError, match="--drop is 'wrong'.*wrong label"):
        run("doctor", faces, "--drop", "wrong")
    with pytest.raises(ConfigError, match="must be one that looks at pixels"):
        run("doctor", faces, "--scorer", "FeatureNorm")
    with pytest.raises(ConfigError, match="give one \\(--model\\)"):
        run("doctor", faces, "--against", faces)
    (faces.parent / "doctor").mkdir()
    with pytest.raises(DataError, match="exists already"):
        run("doctor", faces)
    with pytest.raises(ConfigError, match="people by --ids FILE, or images by --list FILE"):
        run("subset", faces)


def test_without_the_detector_the_report_says_what_to_install(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facelab.data.detection.model_files.find_spec", lambda _: None)
    told = run("doctor", faces, "--workers", 1).output
    assert "Alignment was not checked: detector yunet needs" in told
    assert "facelab[faces]" in told
    with pytest.raises(ConfigError, match="which is not installed"):
        run("doctor", faces, "--detector", "yunet", "--out", "other")
