"""The benchmarks of training and inference run, and both sides of each do the same work."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build
from facelab.errors import DataError
from facelab.inputs import InputSpec, normalise

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY: dict[str, Any] = {"backbones": ["MobileFaceNet"], "batch_size": 4, "rounds": 1, "workers": 0, "tar": None}


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize(
    ("name", "options"),
    [("training", {"steps": 1, "precision": "fp32"}), ("inference", {"images": 4, "precision": "bf16"})],
)
def test_networks(name: str, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    importlib.import_module(name).main(**TINY, **options, seconds=1.0, threads=1, out=out)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["what"] == f"MobileFaceNet, {options['precision']}"
    assert row["ratio"] == pytest.approx(row["facelab"][0] / row["baseline"][0])
    assert "MobileFaceNet" in capsys.readouterr().out


def test_the_stock_network_has_the_same_output_and_none_of_our_modules() -> None:
    plain = importlib.import_module("plain_step")
    spec = {"input_spec": {"height": 32, "width": 32}, "width": 0.25, "feat_dim": 8}
    network = build(BACKBONES, {"MobileFaceNet": spec})
    stock = plain.stock_network(build(BACKBONES, {"MobileFaceNet": spec}))
    stock.load_state_dict(network.state_dict())
    image = torch.randn(2, 3, 32, 32)
    assert not any(isinstance(module, plain.PReLU) for module in stock.modules())
    torch.testing.assert_close(stock(image), network(image))


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_plain_images_are_normalised_as_ours(colour: Any, tmp_path: Path) -> None:
    spec = InputSpec(32, 32, colour=colour, std=128.0)
    paths, labels = importlib.import_module("photos").write_photos(tmp_path, 3, 32, None)
    image, label = importlib.import_module("plain").PlainImages(paths, labels, spec, flip=False)[1]
    ours = importlib.import_module("facelab.data.sources.image_folder").ImageFolder(tmp_path / "photos")
    pixels = torch.from_numpy(ours.read(1)).permute(2, 0, 1)[None]
    assert label == 0
    torch.testing.assert_close(image, normalise(pixels, spec)[0], atol=2.5 / 128, rtol=0.0)  # two JPEG decoders


def test_programs_that_disagree_are_not_compared() -> None:
    inference = importlib.import_module("inference")
    with pytest.raises(DataError, match=r"have a cosine of -1\.0000, below 0\.99"):
        inference.check_agreement(np.ones((2, 3), np.float32), -np.ones((2, 3), np.float32))


def test_an_archive_with_too_few_photos_is_refused(tmp_path: Path) -> None:
    photos, tar = importlib.import_module("photos"), importlib.import_module("tarfile")
    photos.write_photos(tmp_path, 4, 32, None)
    with tar.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(tmp_path / "photos", ".")
    paths, labels = photos.write_photos(tmp_path / "again", 4, 32, tmp_path / "photos.tar")
    assert len(paths) == len(labels) == 4
    with pytest.raises(DataError, match=r"photos\.tar: has 4 images .*; 5 are asked for"):
        photos.write_photos(tmp_path / "more", 5, 32, tmp_path / "photos.tar")
