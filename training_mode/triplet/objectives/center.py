"""The center loss: each image near the mean of its person."""

from typing import ClassVar

from torch import Tensor

from facelab import distributed
from facelab.citation import Citation
from facelab.training_mode.triplet.centers import Centers
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective


@OBJECTIVES.register("Center")
class Center(Objective):
    """``mean |x - c_y|^2 / 2`` (Wen et al., ECCV 2016, eq. 2), to stand beside a classification or another loss.

    Alone it would draw everybody to one point. x are embeddings on the unit sphere, where faces are compared; the paper
    takes them as they are. Centers move without a gradient, by eq. 4, and lie spread over the processes.

    Args:
        num_classes: C, over all processes.
        feat_dim: D, the length of an embedding.
        rate: alpha, 0 to 1: the part of the way that a center goes to the images of a batch.

    Raises:
        ConfigError: If the rate is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wen2016discriminative",
        title="A Discriminative Feature Learning Approach for Deep Face Recognition",
        authors="Wen, Yandong and Zhang, Kaipeng and Li, Zhifeng and Qiao, Yu",
        venue="ECCV",
        year=2016,
    )
    needs_pairs: ClassVar[bool] = False

    def __init__(self, num_classes: int, feat_dim: int, rate: float = 0.5) -> None:
        super().__init__()
        self.centers = Centers(num_classes, feat_dim, rate)

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Mean over the global batch, equal on all processes, ()."""
        # Each process computes the part of its own classes, so what they find for an image is added.
        share = self.centers.spread(distributed.use_locally(embedding), label)
        return distributed.sum_shares(share).mean()

    def row_owner(self) -> Centers:
        """The owner of the centers."""
        return self.centers
