"""Class rows that no gradient moves: the centers of the center loss."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.errors import in_range
from facelab.head.base import ClassShard, MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import Classifier


class Centers(Classifier):
    """Owner of a center for each class: at first the origin, then drawn to the images of its class.

    Args:
        num_classes: C, over all processes.
        feat_dim: D.
        rate: Part of the way to the images of a batch, 0 to 1.

    Attributes:
        weight: Centers of the owned classes, (C_own, D).

    Raises:
        ConfigError: If the rate is out of range.
    """

    weight: Tensor

    def __init__(self, num_classes: int, feat_dim: int, rate: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = MarginHead(1.0)
        self.rate = in_range("Center rate", rate, 0.0, 1.0)
        self.shard = ClassShard.of_this_process(num_classes)
        self.register_buffer("weight", torch.zeros(self.shard.size, feat_dim))
        self._moves: list[tuple[Tensor, Tensor]] = []

    @property
    def row_range(self) -> tuple[int, int]:
        """Classes ``[start, stop)`` that this process owns."""
        return self.shard.start, self.shard.stop

    def row_tensors(self) -> dict[str, Tensor]:
        """``weight``."""
        return {"weight": self.weight}

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """All owned centers."""
        return Candidates(self.weight, *self.shard.columns(labels))

    def spread(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Half the squared distance of each image to its center, (B,), with gradient; 0 where that is elsewhere.

        Args:
            embedding: Of the global batch, (B, D), of any norm.
            labels: Their classes, int64, (B,).
        """
        column, owned = self.shard.columns(labels)
        apart = (F.normalize(embedding) - self.weight[column]) * owned.unsqueeze(1)
        images = (labels.unsqueeze(0) == labels.unsqueeze(1)).sum(dim=1, keepdim=True)
        # Eq. 4: the 1 keeps a center from jumping to the only image of its class in a batch.
        self._moves.append((column, self.rate * apart.detach() / (1 + images)))
        return apart.square().sum(dim=1) / 2.0

    def after_update(self) -> None:
        """Move the centers towards the images of the passes since the last update."""
        for column, move in self._moves:
            self.weight.index_add_(0, column, move)
        self._moves.clear()
