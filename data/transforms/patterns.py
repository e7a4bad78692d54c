"""Patterns of two colours, for what is drawn over faces."""

import torch
from torch import Tensor

from facelab.data.transforms.mask_shapes import Texture


def patterns(x: Tensor, y: Tensor, period: Tensor, turn: Tensor) -> dict[Texture, Tensor]:
    """How much of the second colour each point has, 0..1, in each texture.

    Args:
        x: Columns, in pixels of a face of 112; all arguments broadcast against each other.
        y: Rows.
        period: Of stripes, dots and checks, in such pixels.
        turn: By which they are turned, in radians.
    """
    along, beside = ((x * turn.cos() + y * turn.sin()) / period, (y * turn.cos() - x * turn.sin()) / period)
    wave, other = torch.sin(2 * torch.pi * along), torch.sin(2 * torch.pi * beside)
    return {
        "plain": torch.zeros_like(x),
        "pleats": 0.35 * torch.sin(2 * torch.pi * y / 9).clamp(0, 1) ** 4,
        "stripes": (3 * wave).clamp(-1, 1) / 2 + 0.5,
        "dots": (6 * (wave * other - 0.5)).clamp(0, 1),
        "checks": (4 * wave * other).clamp(-1, 1) / 2 + 0.5,
    }
