"""docs/photos.md: drawn people in scenes become a folder of people that trains; the page's commands and Python run."""

import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.data.formats.alignment_record import read_alignment
from facelab.data.formats.open_files import open_files
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.source import SyntheticFaces

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "photos.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("face_models")
def test_photos_of_people_become_a_training_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    faces, random = SyntheticFaces(identities=3, per_identity=2, size=112, split="test"), np.random.default_rng(0)
    for row in range(len(faces)):
        scene = np.full((200, 260, 3), (150, 160, 170), np.uint8)
        left, top = random.integers(0, 140), random.integers(0, 80)
        scene[top : top + 112, left : left + 112] = faces.read(row)
        Path("photos", f"person{faces.labels[row]}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"photos/person{faces.labels[row]}/{row}.jpg", scene[..., ::-1])
    (command,) = re.findall(r"^facelab (data align photos .*?) *#", PAGE, re.MULTILINE)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    crops = ImageFolder(root=Path("crops"))
    assert (len(crops), crops.num_classes) == (6, 3)
    assert crops.read(0).shape == (112, 112, 3)
    described = "detector yunet (face_detection_yunet_2023mar_int8bq.onnx 49f000ec501f"
    assert described in read_alignment(open_files(Path("crops")))
    assert len(json.loads(Path("crops/faces.jsonl").read_text().splitlines()[0])["faces"][0]["points"]) == 5
    (example,) = re.findall(r"```python\n(from facelab\.data\.detection.*?)```", PAGE, re.DOTALL)
    known = {"image": scene}
    exec(example, known)
    assert known["points"].shape == (1, 5, 2)
    assert np.abs(known["points"][0].mean(axis=0) - (left + 56, top + 66)).max() < 12


def test_every_detector_and_option_is_on_the_page() -> None:
    from facelab.data.detection.base import DETECTORS

    assert [name for name in DETECTORS.names() if f"| `{name}` |" not in PAGE] == []
    for option in ("--select", "--min-size", "--min-score", "--on-missing", "--detector", "--option", "--no-detect"):
        assert option in PAGE
