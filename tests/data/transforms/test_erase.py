"""Erased rectangles have the area that is asked for, and reach every place."""

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[..., Tensor]


def test_erase_paints_a_rectangle_of_the_right_area(every_one: Change) -> None:
    image = torch.full((200, 3, 40, 30), 9, dtype=torch.uint8)
    marks = (every_one("erase", image, smallest=0.1, largest=0.3, fill=200) == 200).all(dim=1)
    height, width = marks.any(dim=2).sum(dim=1), marks.any(dim=1).sum(dim=1)
    area = marks.sum(dim=(1, 2))
    assert torch.equal(height * width, area)
    assert 0.08 < area.min() / 1200 < 0.14
    assert 0.26 < area.max() / 1200 < 0.33
    reached = marks.any(dim=0)
    assert reached.any(dim=0).all()  # from border to border
    assert reached.any(dim=1).all()
