"""Low-resolution versions: the same whatever the order, worse the smaller they are, and within their ranges."""

from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import SOURCES
from facelab.data.sources.degradation import Degradation, Degraded, _reduced
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import ConfigError


@pytest.fixture
def image() -> np.ndarray:
    """Stripes of several widths with different colours, 112 x 112."""
    row, column = np.mgrid[:112, :112]
    waves = [np.sin(row / 3), np.sin(column / 5), np.sin((row + column) / 9)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def clean(size: int) -> Degradation:
    return Degradation((size, size), blur=(0.5, 0.5), noise=(0, 0), jpeg=(95, 95))


def test_a_function_of_seed_and_index(image: np.ndarray) -> None:
    degrade = Degradation()
    first, second = degrade(image, 0, 1), degrade(image, 0, 2)
    np.testing.assert_array_equal(degrade(image, 0, 1), first)
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, degrade(image, 1, 1))


def test_fewer_pixels_lose_more(image: np.ndarray) -> None:
    errors = [np.abs(clean(size)(image, 0, 0).astype(float) - image).mean() for size in (8, 16, 24, 48, 112)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


def test_colours_stay(image: np.ndarray) -> None:
    red = np.zeros_like(image)
    red[..., 0] = 200
    assert np.abs(clean(16)(red, 0, 0).astype(int) - red).max() <= 4


def test_sizes_are_drawn_from_the_whole_range(image: np.ndarray) -> None:
    one_pixel = image[:1, :1].repeat(3, 0).repeat(5, 1)
    assert Degradation((8, 24))(one_pixel, 0, 0).shape == (3, 5, 3)  # smaller than the size: not reduced
    detail = [clean(size)(image, 0, 0).astype(float).std() for size in (8, 24)]
    free = Degradation((8, 24), blur=(0.5, 0.5), noise=(0, 0), jpeg=(95, 95))
    drawn = [free(image, 0, index).astype(float).std() for index in range(40)]
    assert detail[0] - 1e-9 <= min(drawn) < detail[0] + 3
    assert detail[1] - 3 < max(drawn) <= detail[1] + 1e-9


def test_noise_has_the_deviation_asked_for() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = Degradation((64, 64), blur=(0, 0), noise=(10, 10), jpeg=(100, 100))(grey, 0, 0)
    weights = np.array([0.299, 0.587, 0.114])  # of brightness, which JPEG stores at full resolution
    assert (noisy @ weights).std() == pytest.approx(10 * np.linalg.norm(weights), rel=0.1)


@pytest.mark.parametrize("shade", [0, 255])
def test_noise_does_not_turn_black_into_white(shade: int) -> None:
    flat = np.full((64, 64, 3), shade, np.uint8)
    noisy = Degradation((64, 64), blur=(0, 0), noise=(8, 8), jpeg=(100, 100))(flat, 0, 0)
    assert 1 < np.abs(noisy.astype(float) - shade).mean() < 8


def test_blur_is_in_pixels_of_the_reduced_image() -> None:
    """A bright pixel of a reduced image is as wide in it, in pixels, whatever the reduction was."""
    widths = []
    for side in (56, 112, 224):
        point = np.zeros((side, side, 3), np.uint8)
        part = side // 14
        point[6 * part : 7 * part, 6 * part : 7 * part] = 250
        small = _reduced(point, 14, 1.0)[..., 0].astype(float)
        place = np.arange(14)
        mean = (small.sum(axis=0) * place).sum() / small.sum()
        widths.append(np.sqrt((small.sum(axis=0) * (place - mean) ** 2).sum() / small.sum()))
    assert widths == pytest.approx([1.0, 1.0, 1.0], abs=0.12)


def test_reduction_averages_areas_also_where_sides_differ() -> None:
    dots = np.zeros((96, 64, 3), np.uint8)
    dots[::4, ::4] = 160  # one pixel of each 4x4, which linear sampling would miss
    small = _reduced(dots, 16, 0.0)
    assert small.shape == (24, 16, 3)
    assert set(small.ravel().tolist()) == {10}


def test_a_size_reaches_a_source_that_draws_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    spec = {"source": {"SyntheticFaces": {"identities": 2, "per_identity": 1}}, "sizes": [8, 8]}
    assert SOURCES.build("Degraded", spec, size=48).read(0).shape == (48, 48, 3)


def test_the_source_from_a_configuration(faces: Path) -> None:
    spec = {"source": {"ImageFolder": {"root": str(faces)}}, "sizes": [4, 6], "seed": 3}
    source = SOURCES.build("Degraded", spec)
    folder = ImageFolder(faces)
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.num_classes == folder.num_classes
    backwards = [source.read(index) for index in reversed(range(len(source)))][::-1]
    for index, pixels in enumerate(backwards):
        np.testing.assert_array_equal(pixels, Degradation((4, 6))(folder.read(index), 3, index))
        assert (source.name(index), source.location(index)) == (folder.name(index), folder.location(index))
    others = (folder, Degraded(folder, (4, 6), seed=4), Degraded(folder, (4, 7), seed=3))
    assert source.fingerprint() not in {other.fingerprint() for other in others}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (24, 8)}, r"degradation sizes is \[24, 8\]; write the lesser value first"),
        ({"sizes": (0, 8)}, "degradation sizes is 0"),
        ({"noise": (-1.0, 2.0)}, "degradation noise is -1.0"),
        ({"jpeg": (50, 101)}, "degradation jpeg is 101"),
    ],
)
def test_refusals(options: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Degradation(**options)
