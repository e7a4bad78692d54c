"""Batches at another size equal what OpenCV makes of each image, to one grey value; and the same of low resolution."""

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.formats.images import resize_image
from facelab.data.synthetic.source import reduce_resolution
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.resize import area_weights, linear_weights, resize
from facelab.errors import ConfigError


def faces(count: int = 6, height: int = 48, width: int = 40) -> Tensor:
    # Smooth, as faces are.
    grid = np.linspace(0, 3, height)[:, None] + np.linspace(0, 2, width)
    phase = np.random.default_rng(0).uniform(0, 6, (count, 1, 1, 3))
    pixels = (127 + 120 * np.sin(grid[None, :, :, None] + phase)).astype(np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def apart(found: Tensor, expected: list[np.ndarray]) -> int:  # type: ignore[type-arg]
    stacked = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    return int((found.int() - stacked.int()).abs().max())


@pytest.mark.parametrize("size", [(24, 20), (17, 13), (48, 40), (112, 96), (60, 50)])
def test_it_equals_the_resizing_of_each_image(size: tuple[int, int]) -> None:
    image = faces()
    found = resize(image, *size)
    assert found.dtype == torch.uint8
    assert apart(found, [resize_image(one.permute(1, 2, 0).numpy(), *size) for one in image]) <= 1


def test_a_batch_of_that_size_is_left_alone() -> None:
    image = faces()
    assert resize(image, 48, 40) is image


def test_weights_are_shares_of_a_line() -> None:
    expected = np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(area_weights(3, 2), expected)
    np.testing.assert_allclose(linear_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


def test_low_resolution_equals_that_of_the_source() -> None:
    image = faces(height=48, width=48)
    transform = TRANSFORMS.build("low_resolution", {"probability": 1.0, "resolution": [8, 16]})
    draw = Draws(draws_of_batch(3, 0, 0, np.arange(len(image))), "low_resolution")
    sides = 8 + (draw("resolution") * 9).astype(int)
    assert len(set(sides)) > 1
    pairs = zip(image, sides, strict=True)
    expected = [reduce_resolution(one.permute(1, 2, 0).numpy(), int(side)) for one, side in pairs]
    assert apart(transform.image(image, draw), expected) <= 1


def test_an_image_is_not_enlarged_to_be_reduced() -> None:
    image = faces(height=12, width=12)
    number = torch.arange(len(image))
    change = Augment({"low_resolution": {"probability": 1.0, "resolution": [16, 20]}}, 0)
    assert torch.equal(change(Batch(image, number, number), 0, 0).image, image)


@pytest.mark.parametrize(
    ("resolution", "sentence"),
    [([1, 8], "resolution is 1, but must lie in"), ([9, 8], r"is \[9, 8\]; write the lesser")],
)
def test_refusals(resolution: list[int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TRANSFORMS.build("low_resolution", {"resolution": resolution})
