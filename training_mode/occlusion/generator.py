"""Who chooses the cells of a feature map that are dropped: a network that learns where it hurts, or chance."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.data.alignment.alignment import ARCFACE_112
from facelab.data.transforms.draws import Draws, Numbers
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.training_mode.occlusion.cells import CellNumbers
from facelab.training_mode.occlusion.place import Cells

Generator = Literal["learned", "landmark", "half_face", "random"]

PARTS: tuple[tuple[int, ...], ...] = ((0,), (1,), (0, 1), (2,), (3, 4))
"""Landmarks that are dropped together: an eye, the other, both, the nose, the mouth."""
TIE = 1e-3
"""Chance between cells that are as good; much less than from one row of cells to the next."""


class MaskGenerator(CellNumbers):
    """Scores of the cells of a feature map, the higher the sooner dropped; it learns by what dropping them does.

    Scores of an image have mean 0 and deviation 1, so that none is far out on the sigmoid by which they learn.
    """

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H * W), in fp32."""
        scores = super().forward(feature_map).flatten(1).float()
        deviation = scores.var(dim=1, keepdim=True, unbiased=False).add(1e-6).sqrt()
        return (scores - scores.mean(dim=1, keepdim=True)) / deviation


class ChanceScores:
    """Scores by chance: around a landmark, from one of the four sides, or of each cell by itself.

    Args:
        kind: Which.
        cells: Shape of the map.
        spec: Input of the network: the aligned face, or its upper part.
    """

    def __init__(self, kind: Literal["landmark", "half_face", "random"], cells: Cells, spec: InputSpec) -> None:
        self.count = cells.count
        self.choices = {"landmark": _near_parts, "half_face": _from_sides, "random": _alike}[kind](cells, spec)

    def __call__(self, draw: Draws) -> Numbers:
        """Scores of each image, (B, H * W)."""
        chosen = (draw("part") * len(self.choices)).astype(np.int64)
        return np.asarray(self.choices[chosen] + TIE * draw("cells", self.count))


def _centres(cells: Cells) -> Numbers:
    """Centres (x, y) of the cells, 0..1, (H * W, 2)."""
    row, column = np.indices((cells.rows, cells.columns)).reshape(2, -1) + 0.5
    return np.stack([column / cells.columns, row / cells.rows], axis=1)


def _near_parts(cells: Cells, spec: InputSpec) -> Numbers:
    """How near each cell is to each part of the face that the network sees, (P, H * W).

    Raises:
        ConfigError: If it sees none.
    """
    # The face is as wide as the picture; of its height the network may see the upper part alone.
    points, height = (ARCFACE_112 + 0.5) / 112, spec.height / spec.width
    distance = np.linalg.norm((_centres(cells) * [1.0, height])[:, None] - points, axis=2)
    seen = [list(part) for part in PARTS if (points[list(part), 1] < height).all()]
    if not seen:
        raise ConfigError(
            f"occlusion generator: landmark drops eyes, nose and mouth, and the network sees the upper {spec.height} "
            f"of {spec.aligned[0]} rows of the face, above all of them; set generator: random."
        )
    return np.stack([-distance[:, part].min(axis=1) for part in seen])


def _from_sides(cells: Cells, spec: InputSpec) -> Numbers:
    """How near each cell is to the left, the right, the upper and the lower edge, (4, H * W)."""
    x, y = _centres(cells).T
    return np.stack([-x, x, -y, y])


def _alike(cells: Cells, spec: InputSpec) -> Numbers:
    return np.zeros((1, cells.count))


def drop_highest(scores: Tensor, count: int) -> Tensor:
    """Marks exactly ``count`` cells of each image, those with the highest scores: the area limit holds by construction.

    Their gradient is that of the sigmoid of the scores (straight-through), so that cells that were not dropped learn
    what dropping them would have done.

    Args:
        scores: (B, N).
        count: From 1 to N.

    Returns:
        1 for dropped cells, else 0, (B, N).
    """
    marked = torch.zeros_like(scores).scatter(1, scores.topk(count, dim=1).indices, 1.0)
    soft = torch.sigmoid(scores)
    return marked + (soft - soft.detach())


def rows_marked(rows: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """1 for some rows of a batch, else 0, (B, 1)."""
    marked = np.zeros((size, 1), np.float32)
    marked[rows] = 1.0
    return marked


class _Reversed(torch.autograd.Function):
    """The same values with the gradient turned round: what follows is to fall, and this input is to raise it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength  # type: ignore[attr-defined]
        return value.view_as(value)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient[0], None  # type: ignore[attr-defined]


def reversed_gradient(value: Tensor, strength: float = 1.0) -> Tensor:
    """The same values, the gradient times ``-strength`` (Ganin and Lempitsky, ICML 2015, arXiv:1409.7495)."""
    changed: Tensor = _Reversed.apply(value, strength)  # type: ignore[no-untyped-call]
    return changed
