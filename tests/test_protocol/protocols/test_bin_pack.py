"""Packs as image sets and as a protocol."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.errors import ConfigError, CorruptImage
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.protocols.bin_pack import BinPack, PackImages, centre_square, short_side_size
from facelab.test_protocol.run import run_protocols

Write = Callable[..., Path]


@pytest.fixture
def write_pack(tmp_path: Path) -> Write:
    """Writes a pack of one-coloured images: same pairs share their colour."""

    def write(pairs: int = 10, height: int = 16, width: int = 16, broken: int | None = None) -> Path:
        random = np.random.default_rng(0)
        images, same = [], []
        for pair in range(pairs):
            same.append(pair % 2 == 0)
            first = random.integers(0, 256, 3)
            second = first if same[-1] else random.integers(0, 256, 3)
            for colour in (first, second):
                pixels = np.broadcast_to(colour, (height, width, 3)).astype(np.uint8)
                images.append(cv2.imencode(".png", pixels)[1].tobytes())
        if broken is not None:
            images[broken] = images[broken][:20]
        path = tmp_path / "toy.bin"
        path.write_bytes(pickle.dumps((images, same)))
        return path

    return write


def test_from_file_to_report(write_pack: Write, tiny_net: Any) -> None:
    protocol = PROTOCOLS.build("BinPack", {"path": str(write_pack()), "thresholds": "insightface", "folds": 5})
    (report,) = run_protocols(tiny_net, [("toy", protocol)])
    values = {metric.name: metric.value for metric in report.metrics}
    assert values["AUC"] == 1.0
    assert values["XNorm"] is not None
    assert report.options["flip"] is True
    assert report.options["not_square"] == "centre crop"
    assert report.headline.name == "accuracy (InsightFace)"


def test_a_broken_image_names_pack_and_record(write_pack: Write, tiny_net: Any) -> None:
    protocol = BinPack(write_pack(broken=7))
    with pytest.raises(CorruptImage, match=r"toy\.bin, record 7"):
        run_protocols(tiny_net, [("toy", protocol)])


def test_too_few_pairs_for_the_folds(write_pack: Write) -> None:
    with pytest.raises(ConfigError, match="4 pairs cannot be cut into 10 folds; set folds"):
        BinPack(write_pack(pairs=4))
    with pytest.raises(ConfigError, match="short_side must be at least 1"):
        BinPack(write_pack(), short_side=0)


def test_what_is_not_square_loses_its_margins(write_pack: Write) -> None:
    pixels = np.zeros((10, 6, 3), np.uint8)
    pixels[2:8] = 200
    assert (centre_square(pixels) == 200).all()
    assert PackImages(write_pack(height=20, width=16)).read(0).shape == (16, 16, 3)
    assert PackImages(write_pack(height=20, width=16), short_side=8).read(0).shape == (8, 8, 3)


def test_short_side_rounds_down() -> None:
    assert short_side_size(100, 133, 50) == (50, 66)
    assert short_side_size(133, 100, 50) == (66, 50)


def test_reduced_images_are_averaged_and_the_odd_pixel_is_cut_at_the_far_end() -> None:
    dots = np.zeros((80, 64, 3), np.uint8)
    dots[::4, ::4] = 160  # one pixel of each 4x4, which linear sampling would miss
    grey = centre_square(dots, 16)
    assert grey.shape == (16, 16, 3)
    assert set(grey.ravel().tolist()) == {10}
    row, column = np.indices((5, 7))
    numbers = np.stack([row, column, row], axis=-1).astype(np.uint8)
    assert centre_square(numbers[:, :4])[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert centre_square(numbers[:4])[0, :, 1].tolist() == [1, 2, 3, 4]
    assert centre_square(numbers[:4, :5])[0, :, 1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("height", [4, 16])
def test_an_image_is_enlarged_between_its_pixels_whatever_its_shape(height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, 20 - height, 3), np.uint8)
    linear = cv2.resize(pixels, (2 * (20 - height), 2 * height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(centre_square(pixels, short_side=8), centre_square(linear))


def test_names_are_numbers_of_records(write_pack: Write) -> None:
    assert PackImages(write_pack()).name(3) == "record 3"


def test_fingerprints_follow_content_and_size(write_pack: Write) -> None:
    first = PackImages(write_pack()).fingerprint()
    assert PackImages(write_pack()).fingerprint() == first
    assert PackImages(write_pack(), short_side=8).fingerprint() != first
    assert PackImages(write_pack(pairs=9)).fingerprint() != first


def test_fingerprints_follow_answers_and_the_ends_of_records(tmp_path: Path) -> None:
    contents = (([b"ab", b"c"], [True]), ([b"ab", b"c"], [False]), ([b"a", b"bc"], [True]))
    found = set()
    for content in contents:
        (tmp_path / "a.bin").write_bytes(pickle.dumps(content, 2))
        found.add(PackImages(tmp_path / "a.bin").fingerprint())
    assert len(found) == len(contents)
