import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import facelab
from facelab.checkpoint import CheckpointStore
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.face_model import FaceModel, load_backbone
from facelab.inputs import InputSpec


@pytest.fixture(scope="module")
def model(trained_run: Path) -> FaceModel:
    return facelab.load(trained_run)


def pixels_of(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def test_paths_arrays_and_tensors_give_the_same(model: FaceModel, photos: list[Path]) -> None:
    arrays = [pixels_of(path) for path in photos]
    by_path = model.embed([str(path) for path in photos])
    assert by_path.shape == (2, 16)
    assert by_path.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(by_path, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.embed(arrays), by_path)
    np.testing.assert_array_equal(model.embed(np.stack(arrays)), by_path)
    np.testing.assert_array_equal(model.embed(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)), by_path)
    np.testing.assert_allclose(model.embed(photos[0]), by_path[:1], rtol=1e-4, atol=1e-6)


def test_the_model_knows_its_input(model: FaceModel) -> None:
    assert model.input_spec.describe() == "32x32 BGR, -0.9961..0.9961"
    assert model.feat_dim == 16


def test_the_norm_can_be_kept_and_flip_adds_the_mirror(model: FaceModel, photos: list[Path]) -> None:
    raw = model.embed(photos, unit=False)
    mirrored = model.embed([np.ascontiguousarray(pixels_of(path)[:, ::-1]) for path in photos], unit=False)
    np.testing.assert_allclose(model.embed(photos, unit=False, flip=True), raw + mirrored, rtol=1e-4, atol=1e-5)


def test_similarity_is_the_cosine(model: FaceModel, photos: list[Path]) -> None:
    left, right = model.embed(photos)
    assert model.similarity(*photos) == pytest.approx(float(left @ right), abs=1e-6)
    assert model.similarity(photos[0], photos[0]) == pytest.approx(1, abs=1e-6)


def test_nothing_gives_nothing(model: FaceModel) -> None:
    assert model.embed([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.zeros(1, 3, 32, 32), "must be RGB uint8 .N, 3, H, W., got torch.float32"),
        ([np.zeros((32, 32, 3), np.float32)], "image 0 must be a path or an RGB uint8 array .H, W, 3., got float32"),
        (
            [np.zeros((32, 32), np.uint8)],
            r"got uint8 \(32, 32\); the value range and colour order of anything else cannot",
        ),
        ([np.zeros((40, 32, 3), np.uint8)], "image 0 is 40x32, but 'tiny' takes 32x32 BGR"),
        (3, "images must be paths, RGB uint8 arrays or a uint8 tensor, one or a sequence, got int"),
        ([None], "image 0 must be a path or an RGB uint8 array .H, W, 3., got NoneType"),
        (["nowhere.jpg"], "cannot read the image 'nowhere.jpg': No such file or directory"),
    ],
)
def test_what_cannot_be_known_is_refused(model: FaceModel, images: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        model.embed(images)  # type: ignore[arg-type]


def test_another_size_is_resized_on_demand(model: FaceModel) -> None:
    assert model.embed([np.zeros((64, 64, 3), np.uint8)], resize=True).shape == (1, 16)


def test_a_file_that_is_no_image_is_named(model: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg"):
        model.embed(path)


def test_every_checkpoint_of_a_run_loads(trained_run: Path, photos: list[Path]) -> None:
    names = CheckpointStore(trained_run / "checkpoints").names()
    assert len(names) == 2
    embeddings = [facelab.load(trained_run, checkpoint=name).embed(photos) for name in names]
    assert not np.array_equal(*embeddings)
    by_folder = facelab.load(trained_run / "checkpoints" / names[1]).embed(photos)
    np.testing.assert_array_equal(by_folder, embeddings[1])


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ("{", "is missing or damaged"),
        ("[]", "does not describe a model"),
        ('{"format": 1}', "the model description in .* is incomplete"),
        ('{"format": 99}', "has format 99; this facelab reads format 1"),
    ],
)
def test_a_bad_card_is_refused(tmp_path: Path, trained_run: Path, card: str, sentence: str) -> None:
    source = CheckpointStore(trained_run / "checkpoints").find("last")
    for name in ("model.safetensors",):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "model.json").write_text(card)
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": {}}))
    with pytest.raises(CheckpointError, match=sentence):
        facelab.load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"stem.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors' do not fit the network: .* missing .*, 1 unknown"):
        load_backbone({"MobileFaceNet": {"width": 0.25}}, tmp_path / "other.safetensors")


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"0123456789")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_backbone("MobileFaceNet", tmp_path / "bad.safetensors")


def test_a_network_that_takes_quality_gets_one_score_for_each_image(photos: list[Path]) -> None:
    class Weighted(torch.nn.Module):
        input_spec, feat_dim, needs_quality = InputSpec(32, 32), 2, True

        def forward(self, image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
            return torch.stack([quality, image.mean(dim=(1, 2, 3))], dim=1)

    weighted = FaceModel(Weighted(), "weighted", {}, torch.device("cpu"))  # type: ignore[arg-type]
    for batch_size in (1, 64):
        found = weighted.embed(photos, quality=[0.25, 0.5], unit=False, flip=True, batch_size=batch_size)
        assert found[:, 0].tolist() == [0.5, 1.0]  # image and mirrored image, added
    with pytest.raises(ConfigError, match="Weighted takes a quality score of each image"):
        weighted.embed(photos)
    for scores in ([0.1], [0.1, 0.2, 0.3], [[0.1, 0.2]]):
        with pytest.raises(DataError, match="quality scores"):
            weighted.embed(photos, quality=scores)  # type: ignore[arg-type]
