import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import facelab
from facelab.cli import main as cli
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.inputs import InputSpec
from facelab.model.face_model import FaceModel, load_backbone, pick_device
from facelab.run.launch import launch
from facelab.weights.card_check import check_card
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_card


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
        (
            [np.zeros((32, 32, 3), np.float32)],
            "image 0 must be a path, an RGB uint8 array .H, W, 3. or a PIL image, got float32",
        ),
        (
            [np.zeros((32, 32), np.uint8)],
            r"got uint8 \(32, 32\); the value range and colour order of anything else cannot",
        ),
        ([np.zeros((40, 32, 3), np.uint8)], "image 0 is 40x32, but 'tiny' takes 32x32 BGR"),
        (3, "images must be paths, RGB uint8 arrays, PIL images or a uint8 tensor, one or a sequence, got int"),
        (b"a.png", "one or a sequence, got bytes"),
        (np.zeros(3, np.uint8), r"one or a sequence, got uint8 \(3,\)"),
        ([None], "image 0 must be a path, an RGB uint8 array .H, W, 3. or a PIL image, got NoneType"),
        (["nowhere.jpg"], "cannot read the image 'nowhere.jpg': No such file or directory"),
    ],
)
def test_what_cannot_be_known_is_refused(model: FaceModel, images: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        model.embed(images)  # type: ignore[arg-type]


def test_another_size_is_resized_on_demand(model: FaceModel) -> None:
    assert model.embed([np.zeros((64, 64, 3), np.uint8)], resize=True).shape == (1, 16)


ROOM = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "taken"),
    [(32, 32, True), (8, 8, True), (128, 128, True), (64, 67, True), (64, 68, False), (7, 7, False), (129, 129, False)],
)
def test_only_what_may_be_an_aligned_face_is_resized(model: FaceModel, height: int, width: int, taken: bool) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    if taken:
        assert model.embed(image, resize=True).shape == (1, 16)
    else:
        with pytest.raises(DataError, match="no aligned face of another size .*within 5 %, 8 pixels at least, 4 times"):
            model.embed(image, resize=True)
        assert model.embed(image, resize=True, any_photo=True).shape == (1, 16)


def test_photos_of_a_room_are_not_verified(trained_run: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(room := tmp_path / "room.png"), ROOM)
    words = ["verify", str(room), str(room), "--model", str(trained_run), "--resize"]
    result = CliRunner().invoke(cli.app, words)
    assert "room.png' is 48x64" in str(result.exception)
    assert "--any-photo" in str(result.exception)
    assert "cosine similarity 1.0000" in CliRunner().invoke(cli.app, [*words, "--any-photo"]).output
    with pytest.raises(ConfigError, match="any_photo says what may be resized; it goes with resize"):
        facelab.load(trained_run).embed(room, any_photo=True)


@pytest.mark.parametrize("threshold", ["40", "-1.01", "nan", "inf"])
def test_a_threshold_that_no_cosine_has_is_refused(trained_run: Path, photos: list[Path], threshold: str) -> None:
    words = ["verify", *map(str, photos), "--model", str(trained_run), "--threshold", threshold]
    result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, ConfigError)
    assert f"--threshold is {float(threshold)}, but must lie in [-1, 1]" in str(result.exception)


@pytest.mark.parametrize("batch_size", [-1, 0, 1.5, True, "64"])
def test_a_batch_of_nothing_is_refused(model: FaceModel, photos: list[Path], batch_size: Any) -> None:
    with pytest.raises(ConfigError, match="batch_size is .*, but must be a whole number of images, at least 1"):
        model.embed(photos, batch_size=batch_size)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_images_of_pil_are_taken(model: FaceModel, photos: list[Path], mode: str) -> None:
    pil = pytest.importorskip("PIL.Image")
    with pil.open(photos[0]) as opened:
        image = opened.convert(mode)
    expected = model.embed(np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(model.embed(image), expected)
    np.testing.assert_array_equal(model.embed([image, image]), model.embed([np.asarray(image.convert("RGB"))] * 2))


def test_images_of_pil_are_turned_as_files_are(model: FaceModel, photos: list[Path], tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    exif = pil.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    with pil.open(photos[0]) as opened:
        opened.convert("RGB").save(tmp_path / "turned.png", exif=exif)
    with pil.open(tmp_path / "turned.png") as turned:
        np.testing.assert_array_equal(model.embed(turned), model.embed(tmp_path / "turned.png"))


def test_images_of_pil_that_are_cut_or_not_of_8_bits_are_refused(
    model: FaceModel, photos: list[Path], tmp_path: Path
) -> None:
    pil = pytest.importorskip("PIL.Image")
    with pytest.raises(DataError, match="image 0 is a PIL image of mode F"):
        model.embed(pil.new("F", (32, 32)))
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:200])
    with pil.open(tmp_path / "cut.png") as cut, pytest.raises(DataError, match="PIL image that cannot be decoded"):
        model.embed(cut)


def test_tensors_of_another_size_are_treated_as_arrays_are(model: FaceModel) -> None:
    tensor = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(DataError, match="image 0 is 64x64, but 'tiny' takes 32x32"):
        model.embed(tensor)
    assert model.embed(tensor, resize=True).shape == (2, 16)


def test_embeddings_that_are_not_finite_are_refused(trained_run: Path, photos: list[Path]) -> None:
    broken = facelab.load(trained_run, device="cpu")
    next(broken.network.parameters()).data.fill_(torch.nan)
    with pytest.raises(DataError, match=r"0\.png.: its embedding is not finite; the model may be damaged"):
        broken.embed(photos)


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


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("input.colour", "XYZ", "'input.colour' is 'XYZ': Input should be 'RGB' or 'BGR'"),
        ("input.colour", None, "'input.colour' is None"),
        ("input.height", 0, "input_spec height is 0, but must lie in"),
        ("input.width", 1 << 40, "input_spec width is 1099511627776, but must lie in"),
        ("input.height", True, "'input.height' is true, but must be a number"),
        ("input.height", 32.5, "'input.height' is 32.5: Input should be a valid integer"),
        ("input.std", 0, "input_spec std is 0.0, but must lie in"),
        ("input.mean", float("nan"), "'input.mean' is nan, but must be a finite number"),
        ("input.depth", 3, "'input.depth' is 3: Unexpected keyword argument"),
        ("input", [], r"'input' is \[\]: Input should be a dictionary"),
        ("format", "1", "has format '1'; this facelab reads format 1"),
        ("format", None, "has format None"),
        ("backbone", "r50", "'backbone' is 'r50'"),
        ("backbone.name", 5, "'backbone.name' is 5: Input should be a valid string"),
        ("backbone.options", None, "'backbone.options' is None: Input should be a valid dictionary"),
        ("feat_dim", -1, "'feat_dim' is -1: Input should be greater than or equal to 1"),
        ("feat_dim", 1 << 50, "'feat_dim' is 1125899906842624: Input should be less than or equal to 1048576"),
        ("feat_dim", True, "'feat_dim' is True: Input should be a valid integer"),
        ("plugins", 5, "'plugins' is 5: Input should be a valid list"),
        ("plugins", [5], "'plugins.0' is 5: Input should be a valid string"),
        ("update", -3, "'update' is -3"),
        ("epoch", float("inf"), "'epoch' is inf"),
        ("parameters", "many", "'parameters' is 'many'"),
        ("adapter", {}, "is incomplete: 'gate' is missing|'adapter' is {}"),
    ],
)
def test_every_field_of_a_card_is_checked(trained_run: Path, field: str, value: Any, sentence: str) -> None:
    card: Any = read_card(CheckpointStore(trained_run / "checkpoints").find("last"))
    *parents, last = field.split(".")
    node = card
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(CheckpointError, match=sentence) as caught:
        check_card(card, "the folder")
    assert "'the folder'" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("adapter", {"LoRA": {}, "DualLoRA": {}}, "'adapter' is .*: Dictionary should have at most 1 item"),
        ("adapter", "LoRA", "'adapter' is 'LoRA'"),
        ("gate", 5, "'gate' is 5"),
        ("base_hash", None, "'base_hash' is None"),
        ("scorer", {"card": {"name": "x", "low": 2, "high": 1}}, "low 2.0 must be below high 1.0"),
        ("scorer", {}, "is incomplete: 'scorer.card' is missing"),
        ("embedding_dim", 0, "'embedding_dim' is 0"),
    ],
)
def test_every_field_of_adapters_is_checked(dual: Path, field: str, value: Any, sentence: str) -> None:
    card = {**read_card(CheckpointStore(dual / "checkpoints").find("last")), field: value}
    with pytest.raises(CheckpointError, match=sentence):
        check_card(card, "the folder")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda", "the device is 'cuda', but torch .* finds no CUDA GPU on this machine; choose auto or cpu"),
        ("cuda:3", "the device is 'cuda:3', but torch .* finds no CUDA GPU"),
        ("gpu", "the device is 'gpu', but must be one of: auto, cpu, cuda"),
        ("cpu:x", "the device is 'cpu:x', but must be one of: auto, cpu, cuda"),
        ("", "the device is '', but must be one of"),
        ("meta", "the device is 'meta'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=sentence):
        pick_device(device)


def test_no_test_takes_a_gpu_unless_it_needs_one() -> None:
    assert pick_device("auto").type == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # nor does what it starts


def test_training_on_a_device_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny = str(Path(__file__).parents[2] / "tiny_run.yaml")
    with pytest.raises(ConfigError, match="finds no CUDA GPU on this machine"):
        launch(tiny, ["training.device=cuda"], run=tmp_path / "run")


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


def test_a_damaged_checkpoint_is_answered_with_those_that_can_be_loaded(tmp_path: Path, trained_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    store = CheckpointStore(run / "checkpoints")
    first, *_, last = store.names()
    assert first != last
    (store.folder / last / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"is damaged: .* Unharmed: {first}.*; take one by --checkpoint step-"):
        facelab.load(run)
    assert facelab.load(run, checkpoint=first).name == "run"
