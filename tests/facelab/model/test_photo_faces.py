"""Photos instead of aligned crops: `FaceModel.embed(photos, detect=True)`, `facelab verify a.jpg b.jpg`."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import facelab
from facelab.cli.detect import built_detector
from facelab.cli.main import app
from facelab.data.alignment.alignment import ARCFACE_112, align
from facelab.data.alignment.photo_aligner import FaceChoice, PhotoAligner
from facelab.data.base import Pixels
from facelab.data.detection import model_files
from facelab.data.detection.base import Detector, Faces
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec
from facelab.model.photo_faces import PhotoFaces
from facelab.weights.model_folder import rewrite_card
from facelab.weights.state_hash import state_hash


class Known(Detector):
    """Finds a face at a place that it knows, and a smaller one, in every photo that is wide enough."""

    points = ARCFACE_112 / 2 + (30, 20)

    def find(self, image: Pixels) -> Faces:
        if image.shape[1] < 100:
            return Faces.none()
        boxes = np.array([[5, 5, 25, 25], [30, 20, 86, 76.0]])
        return Faces(boxes, np.array([0.9, 0.8]), np.stack([ARCFACE_112 / 8 + 5, self.points]))


@pytest.fixture
def photo() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)


def test_photos_give_the_embeddings_of_their_aligned_faces(trained_run: Path, photo: Pixels) -> None:
    model, told = facelab.load(trained_run), []
    crop = align(photo, Known.points, 32)
    found = model.embed([photo, crop], detect=Known(), on_face=told.append)
    assert (found[0] == found[1]).all()  # the crop has the network's size and stays as it is
    assert (found == model.embed([crop, crop])).all()
    assert told == ["image 0: a face was found at x 30 to 86, y 20 to 76, score 0.80, the largest of 2"]


def test_photos_without_a_face_and_contradictions_are_refused(trained_run: Path, photo: Pixels) -> None:
    model = facelab.load(trained_run)
    with pytest.raises(DataError, match="image 1: no face of 10 pixels or more was found in the photo of 100x90 "):
        model.embed([photo, photo[:, :90]], detect=Known())
    with pytest.raises(ConfigError, match="detect finds the face in an image of another size, resize takes it for one"):
        model.embed(photo, detect=Known(), resize=True)
    with pytest.raises(ConfigError, match="unknown detector 'yunett'. Did you mean 'yunet'"):
        model.embed(photo, detect="yunett")
    with pytest.raises(DataError, match=r"find the face in it \(detect=True, --detect\)"):
        model.embed(photo)
    with pytest.raises(ConfigError, match="found faces are aligned to squares, but the network takes 112x96"):
        PhotoFaces(Known(), InputSpec(112, 96)).cut(photo, "a.png")


def test_aligned_crops_need_no_package_of_a_detector(
    trained_run: Path, photo: Pixels, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda _: None)
    model = facelab.load(trained_run)
    assert model.embed(photos, detect=True).shape == (2, 16)
    with pytest.raises(
        ConfigError,
        match=r"image 0 is 100x120, but '.*' takes 32x32 .*, and no face can be looked for: detector yunet needs .*"
        r"pip install 'facelab\[faces\]'",
    ):
        model.embed(photo, detect=True)


@pytest.mark.usefixtures("face_models")
def test_verify_and_embed_take_photos(trained_run: Path, photos: list[Path], tmp_path: Path) -> None:
    scene = np.full((200, 260, 3), (150, 160, 170), np.uint8)
    scene[40:152, 100:212] = SyntheticFaces(identities=6, per_identity=1, size=112, split="test").read(5)
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene[..., ::-1])
    words = ["verify", str(path), str(photos[0]), "--model", str(trained_run)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "cosine similarity" in result.stdout
    assert "scene.png': a face was found at x 1" in result.stderr
    assert f"{photos[0]}': a face" not in result.stderr  # it has the network's size
    with pytest.raises(DataError, match="is 200x260, but .* takes 32x32"):
        raise CliRunner().invoke(app, [*words, "--no-detect"]).exception or AssertionError
    out = ["--out", str(tmp_path / "e.npz"), "--detector", "mtcnn", "--option", "smallest=40"]
    assert CliRunner().invoke(app, ["embed", str(trained_run), str(path), *out]).exit_code == 0


def calibrated(run: Path, place: Path, alignment: str) -> Path:
    """A copy of a model whose card says that it was calibrated on faces of some alignment."""
    model = facelab.load(run)
    rates = dict.fromkeys(("real_fmr", "fmr_low", "fmr_high", "fnmr", "fnmr_low", "fnmr_high"), 0.1)
    record = {
        "version": 1,
        "weights": state_hash(model.network.state_dict()),
        "input": model.input_spec.describe(),
        **{"flip": False, "resize": False, "any_photo": False, "alignment": alignment},
        **{"protocol": "LFW", "image_set": "abc", "same": 300, "different": 30_000, "impostors": "all", "people": 5},
        "thresholds": [{"fmr": 1e-3, "threshold": 0.3, **rates}],
        **{"slope": 20.0, "offset": -5.0, "cllr": 0.1, "min_cllr": 0.09, "folds": 10},
    }
    stored = model.save(place)
    rewrite_card(stored, {**facelab.load(stored).card, "calibration": record})
    return stored


@pytest.mark.usefixtures("face_models")
def test_verify_says_when_a_verdict_rests_on_faces_that_were_aligned_otherwise(
    trained_run: Path, photos: list[Path], tmp_path: Path
) -> None:
    scene = tmp_path / "a\nscene.png"
    pixels = np.full((200, 260, 3), (150, 160, 170), np.uint8)
    pixels[40:152, 100:212] = SyntheticFaces(identities=6, per_identity=1, size=112, split="test").read(5)
    cv2.imwrite(str(scene), pixels[..., ::-1])

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stderr

    given = calibrated(trained_run, tmp_path / "given", "unknown")
    note = "Note: the faces here were found by yunet, but those that the verdict rests on (LFW) were aligned otherwise"
    assert f"{note} (unknown), so its rates may be others: " in (
        said := run("verify", scene, photos[0], "--model", given)
    )
    assert "a\\nscene.png': a face was found at x" in said  # whatever the name holds, a line is a line
    assert "Note" not in run("verify", photos[1], photos[0], "--model", given)  # no face was looked for
    yunet = built_detector("yunet", [], None)  # as facelab data align --select all --format jpg records it
    crops = PhotoAligner(yunet.detector, FaceChoice("all"), 32).record(yunet.name, yunet.options, "jpg 95")
    alike = calibrated(trained_run, tmp_path / "alike", crops.describe())
    assert "Note" not in run("verify", scene, photos[0], "--model", alike)
    other = run("verify", scene, photos[0], "--model", alike, "--option", "longest=600")
    assert f"{note} (ArcFace scaled 32, template " in other
