"""The contract of losses over the embeddings of a batch, and their registry."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from facelab.citation import Citation
from facelab.head.classifier import Classifier
from facelab.registry import Registry


class Objective(nn.Module, ABC):
    """A loss that compares the embeddings of a batch with each other, or with what it keeps of each class.

    The constructor's signature is the YAML schema; ``num_classes``, ``feat_dim`` and ``seed`` are supplied by the
    program. What it learns or remembers lies in parameters and buffers: checkpoints keep them.

    Attributes:
        needs_pairs: Whether it learns nothing from a batch in which nobody comes twice.
    """

    citation: ClassVar[Citation | None] = None
    needs_pairs: ClassVar[bool] = True

    @abstractmethod
    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The loss, (); a zero with a gradient where the batch has nothing to compare.

        Args:
            embedding: Of the images of all processes, fp32, (B, D), of any norm; every process computes the same.
            label: Class of each, int64, (B,).
        """

    def row_owner(self) -> Classifier | None:
        """Who owns what it keeps of each class, spread over the processes; its state is that of the objective."""
        return None


OBJECTIVES: Registry[Objective] = Registry(
    "objective", "facelab.training_mode.triplet.objectives", supplied=("num_classes", "feat_dim", "seed")
)
