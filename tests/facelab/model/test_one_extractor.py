"""A model on images that a user hands over, and protocols on the same images: one extractor, equal bit by bit."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import facelab
from facelab.data.formats.images import PathImages
from facelab.quality.table import QualityScores
from facelab.test_protocol.extraction.embed import embed

COUNT = 11


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PathImages:
    """Eleven images of noise: the last batch of four is short, and batches of 64 are one short batch."""
    folder = tmp_path_factory.mktemp("noise")
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    names = [f"{number:02d}.png" for number in range(COUNT)]
    for name, image in zip(names, pixels, strict=True):
        cv2.imwrite(str(folder / name), image)
    return PathImages(folder, names)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("flip", [False, True])
def test_images_are_embedded_as_by_protocols(
    trained_run: Path, images: PathImages, batch_size: int, flip: bool
) -> None:
    model = facelab.load(trained_run, device="cpu")
    found = embed(model.network, images, batch_size=batch_size, flip=flip)
    expected = found.values if found.flipped is None else found.values + found.flipped
    pixels = np.stack([images.read(row) for row in range(COUNT)])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for given in ([images.location(row) for row in range(COUNT)], pixels, tensor, tensor.contiguous()):
        raw = model.embed(given, flip=flip, batch_size=batch_size, unit=False)
        np.testing.assert_array_equal(raw, expected)


def test_images_with_quality_scores_are_embedded_as_by_protocols(dual: Path, images: PathImages) -> None:
    model = facelab.load(dual, device="cpu")
    values = np.linspace(0.1, 0.9, COUNT, dtype=np.float32)
    assert model.network.quality_scorer is not None
    found = embed(model.network, images, batch_size=4, quality=QualityScores(values, model.network.quality_scorer))
    given = [images.location(row) for row in range(COUNT)]
    raw = model.embed(given, batch_size=4, unit=False, quality=values.tolist())
    np.testing.assert_array_equal(raw, found.values)
    turned = model.embed(given, batch_size=4, unit=False, quality=values[::-1].tolist())
    assert not np.array_equal(turned, raw)


def test_a_model_is_left_as_it_was(trained_run: Path, images: PathImages) -> None:
    model = facelab.load(trained_run, device="cpu")
    model.network.train()
    model.embed(images.location(0))
    assert model.network.training
