"""What the tests of single transforms share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.transforms.augment import Augment


@pytest.fixture(scope="session")
def every_one() -> Callable[..., Tensor]:
    """A function ``every_one(name, image, **options)`` that gives the images, each changed by one transform."""

    def change(name: str, image: Tensor, **options: object) -> Tensor:
        number = torch.arange(len(image))
        return Augment({name: {"probability": 1.0, **options}}, 0)(Batch(image, number, number), 0, 0).image

    return change
