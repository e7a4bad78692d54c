"""Recipes of low resolution: their parts against OpenCV, and what they have in common."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch, Pixels
from facelab.data.sources.degradation import Degradation
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.jpeg import stored_as_jpeg
from facelab.data.transforms.low_resolution import RECIPES, gaussian_blur
from facelab.data.transforms.noise import gaussian_noise
from facelab.errors import ConfigError


def pattern(side: int = 112) -> Pixels:
    """Soft stripes of several widths with different colours."""
    row, column = np.mgrid[:side, :side]
    waves = [np.sin(row / 7), np.sin(column / 9), np.sin((row + column) / 12)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def reduced(recipe: str, images: int = 24, **options: object) -> Tensor:
    image = torch.from_numpy(pattern()).permute(2, 0, 1).expand(images, 3, 112, 112)
    image = image.contiguous(memory_format=torch.channels_last)
    number = torch.arange(images)
    change = Augment({"low_resolution": {"probability": 1.0, "recipe": recipe, **options}}, 0)
    return change(Batch(image, number, number), 0, 0).image


@pytest.mark.parametrize(("side", "quality"), [(112, 30), (48, 75), (20, 95)])
def test_a_jpeg_file_leaves_what_opencv_reads_back(side: int, quality: int) -> None:
    image = cv2.resize(pattern(), (side, side), interpolation=cv2.INTER_AREA)
    room = -(-side // 16) * 16
    padded = np.pad(image, ((0, room - side), (0, room - side), (0, 0)), mode="edge")
    found = stored_as_jpeg(torch.from_numpy(padded).permute(2, 0, 1)[None].float(), np.array([quality]))
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    error = np.abs(found[0].permute(1, 2, 0).numpy()[:side, :side] - expected).mean()
    assert error < 0.35 * np.abs(expected - image).mean()
    assert error < 1.5


def test_blur_is_that_of_opencv_away_from_the_border() -> None:
    image = pattern()
    found = gaussian_blur(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(), np.array([[3.0, 3.0]]), np.array([[112, 112]])
    )
    expected = cv2.GaussianBlur(image, (0, 0), 3.0)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected)[12:-12, 12:-12].max() <= 1


def test_noise_is_normal_and_a_function_of_its_key() -> None:
    keys = np.array([1, 2**63 + 5, 77], np.uint64)
    noise = gaussian_noise(keys, (3, 64, 64), torch.device("cpu"))
    assert torch.equal(gaussian_noise(keys[1:], (3, 64, 64), torch.device("cpu")), noise[1:])
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    assert (noise.flatten(1).corrcoef() - torch.eye(3)).abs().max() < 0.05
    assert 0.94 < (noise.abs() < 1.96).float().mean() < 0.96


def test_the_camera_on_the_device_is_that_of_stored_images() -> None:
    """Where nothing is left to chance, and but for the border and the rounding of JPEG."""
    sharp = {"blur": (0.5, 0.5), "noise": (0.0, 0.0), "jpeg": (90, 90)}
    found = reduced("camera", 1, resolution=[20, 20], **{name: list(value) for name, value in sharp.items()})
    expected = Degradation((20, 20), **sharp)(pattern(), 0, 0)  # type: ignore[arg-type]
    difference = np.abs(found[0].permute(1, 2, 0).numpy().astype(float) - expected)
    assert difference[8:-8, 8:-8].mean() < 2.5
    assert np.abs(pattern().astype(float) - expected).mean() > 3 * difference.mean()


@pytest.mark.parametrize("recipe", RECIPES)
def test_fewer_pixels_lose_more(recipe: str) -> None:
    image = torch.from_numpy(pattern()).permute(2, 0, 1).float()
    sides = (8, 16, 48)
    errors = [(reduced(recipe, resolution=[side, side]).float() - image).abs().mean().item() for side in sides]
    assert errors == sorted(errors, reverse=True)


def test_twice_loses_more_than_once() -> None:
    image = torch.from_numpy(pattern()).permute(2, 0, 1).float()
    errors = [(reduced(recipe, 60, resolution=[16, 16]).float() - image).abs().mean() for recipe in RECIPES]
    assert errors[list(RECIPES).index("second_order")] == max(errors)


@pytest.mark.parametrize("recipe", ["average", "interpolation", "second_order"])
def test_stored_images_have_the_same_recipes(recipe: str) -> None:
    """One image of the transform's batch, as the source of such images draws it."""
    degrade = Degradation((8, 24), recipe=recipe)  # type: ignore[arg-type]
    expected = reduced(recipe, 3)[2].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(degrade(pattern(), 0, 2), expected)


def test_keys_of_stored_images_know_the_recipe() -> None:
    keys = {Degradation(recipe=recipe).key for recipe in RECIPES}
    assert len(keys) == len(RECIPES)
    assert Degradation().key == "Degradation(sizes=(8, 24), blur=(0.2, 0.8), noise=(0.0, 6.0), jpeg=(50, 95))"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"blur": [2, 1]}, r"low_resolution blur is \[2, 1\]; write the lesser one first"),
        ({"jpeg": [0, 50]}, "low_resolution jpeg is 0, but must lie in"),
        ({"recipe": "camra"}, "transform 'low_resolution' option 'recipe' is 'camra'"),
    ],
)
def test_refusals(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Augment({"low_resolution": options}, 0)


def test_stored_images_have_no_other_recipe() -> None:
    with pytest.raises(ConfigError, match="degradation recipe is 'lens'"):
        Degradation(recipe="lens")  # type: ignore[arg-type]
