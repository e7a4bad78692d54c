"""Every metric of golden ``protocols/insightface_bin``, by way of `PackImages` and the extractor."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab.errors import DataError
from facelab.inputs import InputSpec
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.metrics import metrics, reference_rules
from facelab.test_protocol.metrics.pair_scores import Rules, ScoredPairs
from facelab.test_protocol.protocols.bin_pack import PackImages, short_side_size

SMALL = Path(__file__).resolve().parent.parent / "golden"
TWINS = ("pack_bytes.bin", "pack_py2.bin", "pack_ndarray_jpeg.bin")  # the same images and answers, stored differently

# The reference program crashes here; ours must not.
DELIBERATELY_DIFFERENT = ("toy/batch_size_64_larger_than_40_images", "resize/pack_160x128_load")


class ToyEmbedder(nn.Module):
    """Mean over each 14x14 block."""

    input_spec = InputSpec(112, 112)

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 14).flatten(1)


def toy_scores(folder: Path, batch_size: int = 64) -> tuple[Embeddings, ScoredPairs]:
    images = PackImages(folder / TWINS[0])
    embeddings = embed(ToyEmbedder(), images, flip=True, batch_size=batch_size)
    pairs = np.arange(len(images)).reshape(-1, 2)
    fold = metrics.contiguous_folds(len(pairs), 10)
    return embeddings, ScoredPairs.of(embeddings, pairs, images.same, fold, Rules(flip=True))


def ours(folder: Path) -> dict[str, Any]:
    images = PackImages(folder / TWINS[0])
    first = images.read(0).astype(float)
    _, scored = toy_scores(folder)
    grid = reference_rules.grid_accuracy(scored.squared_distance, scored.same, scored.fold)
    val = reference_rules.val_at_far(scored.squared_distance, scored.same, scored.fold)
    exact = metrics.kfold_accuracy(scored.cosine, scored.same, scored.fold)
    curve = metrics.roc(scored.cosine, scored.same)
    thresholds = np.arange(0, 4, 0.01)
    gaps = np.abs(scored.squared_distance[:, None] - thresholds).min()
    records = [record if isinstance(record, bytes) else record.tobytes() for record in images.records]
    size = short_side_size(128, 160, 112)
    return {
        "parse/n_pairs": len(images.same),
        "parse/issame": images.same,
        "parse/sha256_of_first_and_last_jpeg": [hashlib.sha256(records[row]).hexdigest() for row in (0, -1)],
        "decode/rgb_channel_mean": [images.read(row).mean(axis=(0, 1)) for row in range(len(images))],
        "decode/first_image_pixel_56_56_rgb": first[56, 56],
        "decode/flipped_first_image_pixel_56_0_rgb": first[:, ::-1][56, 0],
        "toy/accuracy_mean": grid.mean,
        "toy/accuracy_std": grid.deviation,
        "toy/xnorm": scored.mean_norm,
        "toy/fold_accuracy": grid.accuracy,
        "toy/squared_distance": scored.squared_distance,
        "toy/val_at_far_1e-3": val.val.mean(),
        "toy/far_mean": val.far.mean(),
        "toy/min_gap_distance_to_threshold_grid": gaps,
        "correct/toy/accuracy_mean": exact.mean,
        "correct/toy/auc": metrics.auc(curve),
        "correct/toy/tar_at_far_0.1": metrics.tar_at_far(curve, [0.1])[0].tar,
        "resize/pack_160x128_shape_after_short_side_112": size,
    }


def check_all(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())["metrics"]
    names = [name for name in expected if not name.startswith("info/") and name not in DELIBERATELY_DIFFERENT]
    computed = ours(folder)
    wrong = []
    for name in names:
        value, tolerance = expected[name]["value"], float(expected[name]["tolerance"])
        text = isinstance(value, list) and isinstance(value[0], str)
        same = computed[name] == value if text else np.allclose(computed[name], value, rtol=0, atol=tolerance + 1e-9)
        if not same:
            wrong.append(f"{name}: expected {value}, got {computed[name]}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture(params=["small copy", pytest.param("golden folder", marks=pytest.mark.golden)])
def folder(request: pytest.FixtureRequest) -> Path:
    root = SMALL if request.param == "small copy" else request.getfixturevalue("golden_root")
    return Path(root) / "protocols" / "insightface_bin"


def test_every_metric(folder: Path) -> None:
    check_all(folder)


def test_packs_stored_differently_are_equal(folder: Path) -> None:
    packs = [PackImages(folder / name) for name in TWINS if (folder / name).is_file()]
    assert len({pack.fingerprint() for pack in packs}) == 1
    assert len({pack.same.tobytes() for pack in packs}) == 1


def test_an_unsafe_pack_is_refused_and_runs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"unsafe\.bin: refused, because it asks for '\w+\.\w+'.*nothing of it was run"):
        PackImages(folder / "pack_unsafe.bin")
    assert capsys.readouterr().out == ""


def test_a_batch_larger_than_the_pack_changes_nothing(folder: Path) -> None:
    """The original fails with a ValueError."""
    large, small = toy_scores(folder, 64)[0], toy_scores(folder, 7)[0]
    np.testing.assert_array_equal(large.values, small.values)


def test_images_that_are_not_square_are_cut_in_the_centre(folder: Path) -> None:
    """The original fails with a RuntimeError."""
    images = PackImages(folder / "pack_160x128.bin", short_side=112)
    assert {images.read(row).shape for row in range(len(images))} == {(112, 112, 3)}
    assert PackImages(folder / "pack_160x128.bin").read(0).shape == (128, 128, 3)


@pytest.mark.golden
def test_decoded_arrays_are_read(golden_root: Path) -> None:
    images = PackImages(golden_root / "protocols" / "insightface_bin" / "pack_ndarray_hwc.bin")
    assert images.read(len(images) - 1).shape == (112, 112, 3)


@pytest.mark.real
def test_packs_written_by_mxnet_programs(shared_root: Path) -> None:
    folder = shared_root / "data" / "recordio"
    manifest = json.loads((folder / "manifest.json").read_text())["bin"]
    for name in manifest["files"]:
        images = PackImages(folder / name)
        records = [record if isinstance(record, bytes) else record.tobytes() for record in images.records]
        assert images.same.tolist() == manifest["issame"]
        assert [hashlib.sha256(record).hexdigest() for record in records] == manifest["image_sha256"]


@pytest.mark.real
def test_a_pack_of_same_pairs_only_says_what_cannot_be_measured(shared_root: Path) -> None:
    protocol = PROTOCOLS.build("BinPack", {"path": shared_root / "data" / "faces" / "small_lfw.bin"})
    torch.manual_seed(0)
    report = protocol.evaluate(embed(ToyEmbedder(), protocol.images, flip=True))
    values = {metric.name: metric.value for metric in report.metrics}
    assert values == {
        "accuracy": None,
        "TAR@FAR=1e-3": None,
        "TAR@FAR=1e-2": None,
        "TAR@FAR=1e-1": None,
        "AUC": None,
        "EER": None,
        "same pairs": 10.0,
        "different pairs": 0.0,
    }
    assert report.headline.note == "cannot be measured: all 10 pairs are same pairs"
