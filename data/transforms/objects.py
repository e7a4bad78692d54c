"""Outlines of what may lie over a face, in pixels of a face that is aligned to 112x112."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from facelab.data.alignment.alignment import ARCFACE_112
from facelab.data.transforms.mask_shapes import MIDDLE

Kind = Literal["rectangle", "ellipse", "sunglasses", "hand", "scarf"]
Outline = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Columns (1, 1, H, W), rows (1, 1, H, W) and numbers in [0, 1), (R, `NUMBERS`), to what is covered, (R, 1, H, W)."""

NUMBERS = 6
LEAST_AREA, LARGEST_AREA = 0.03, 0.3
"""Of a rectangle or an ellipse, as a part of the picture."""
LONGEST = 3.0
"""A rectangle or an ellipse is up to so many times as long as it is wide."""

EYES, EYES_HEIGHT = ARCFACE_112[:2, 0].tolist(), float(ARCFACE_112[:2, 1].mean())
# Root and tip of four fingers and a thumb with their half widths; the palm is at 0, the wrist below it.
FINGERS = (
    ((-11.0, -11.0), (-17.0, -33.0), 3.8),
    ((-4.0, -13.0), (-6.0, -41.0), 4.0),
    ((4.0, -13.0), (5.0, -40.0), 4.0),
    ((11.0, -11.0), (16.0, -32.0), 3.6),
    ((10.0, 4.0), (26.0, -12.0), 4.6),
)
PALM, WRIST = (15.5, 17.0), 10.5


def rectangle(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """A rectangle anywhere, turned by any angle."""
    along, beside, length, width = _laid(x, y, numbers)
    return (along.abs() <= length) & (beside.abs() <= width)


def ellipse(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """An ellipse anywhere, turned by any angle."""
    along, beside, length, width = _laid(x, y, numbers)
    return (along / length).square() + (beside / width).square() <= 4 / torch.pi  # of the same area as the rectangle


def sunglasses(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """Two lenses over the eyes, a bridge between them, and arms that go to the ears."""
    wide, high, power, right, down, _ = _columns(numbers)
    length, width, power = 12 + 6 * wide, 10 + 5 * high, 2 + 3 * power
    x, y = x - 4 * (right - 0.5), y - EYES_HEIGHT - 1 - 4 * (down - 0.5)
    lenses = [((x - eye).abs() / length) ** power + (y.abs() / width) ** power <= 1 for eye in EYES]
    frame = (y + width / 3).abs() <= 1.5
    between = (x > EYES[0]) & (x < EYES[1])
    beyond = (x < EYES[0] - length + 1) | (x > EYES[1] + length - 1)
    covered: Tensor = lenses[0] | lenses[1] | (frame & (between | beyond))
    return covered


def hand(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """A palm, four fingers, a thumb and a wrist that leaves the picture; from below or from a side."""
    right, down, turn, size, mirror, _ = _columns(numbers)
    size, angle = 0.8 + 0.5 * size, torch.pi * 1.2 * (turn - 0.5)
    x, y = (x - 28 - 56 * right) / size, (y - 45 - 55 * down) / size
    along, up = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    along = torch.where(mirror < 0.5, along, -along)
    covered = ((along / PALM[0]).square() + (up / PALM[1]).square() <= 1) | ((along.abs() <= WRIST) & (up > 0))
    for root, tip, radius in FINGERS:
        covered = covered | (_distance(along, up, root, tip) <= radius)
    return covered


def scarf(x: Tensor, y: Tensor, numbers: Tensor) -> Tensor:
    """Everything below an edge between nose and mouth that is bent and not quite level."""
    height, tilt, bend, wave, phase, _ = _columns(numbers)
    across = (x - MIDDLE) / MIDDLE
    edge = 62 + 24 * height + 16 * (tilt - 0.5) * across + 10 * (bend - 0.3) * across.square()
    covered: Tensor = y >= edge + 3 * wave * torch.sin(2 * torch.pi * (across + phase))
    return covered


OUTLINES: dict[Kind, Outline] = {
    "rectangle": rectangle,
    "ellipse": ellipse,
    "sunglasses": sunglasses,
    "hand": hand,
    "scarf": scarf,
}


def _laid(x: Tensor, y: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places along and beside the longer axis of a turned rectangle, and half its length and width."""
    right, down, area, shape, turn, _ = _columns(numbers)
    area, shape = LEAST_AREA + (LARGEST_AREA - LEAST_AREA) * area, LONGEST**shape
    x, y, angle = x - 112 * right, y - 112 * down, torch.pi * turn
    along, beside = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    return along, beside, 56 * (area * shape).sqrt(), 56 * (area / shape).sqrt()


def _distance(x: Tensor, y: Tensor, root: tuple[float, float], tip: tuple[float, float]) -> Tensor:
    """From a stretch between two points."""
    right, down = tip[0] - root[0], tip[1] - root[1]
    place = (((x - root[0]) * right + (y - root[1]) * down) / (right**2 + down**2)).clamp(0, 1)
    return torch.hypot(x - root[0] - place * right, y - root[1] - place * down)


def _columns(numbers: Tensor) -> tuple[Tensor, ...]:
    """Columns of (R, N), each as (R, 1, 1, 1)."""
    return numbers[:, :, None, None, None].unbind(1)
