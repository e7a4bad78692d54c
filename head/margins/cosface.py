"""CosFace, also known as AM-Softmax: a margin is subtracted from the target's cosine."""

from typing import ClassVar

from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("CosFace")
class CosFace(MarginHead):
    """Additive cosine margin (Wang et al., CVPR 2018, arXiv:1801.09414, Eq. 4; AM-Softmax, arXiv:1801.05599, Eq. 7).

    The target logit is ``s (cos(theta) - m)``, all others ``s cos(theta_j)``. Value and gradient are as in the paper.

    Args:
        margin: m, from 0 (softmax of cosines) to 1.
        scale: s, the norm given to the normalised features.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2018cosface",
        title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
        authors="Wang, Hao and Wang, Yitong and Zhou, Zheng and Ji, Xing and Gong, Dihong and Zhou, Jingchao and "
        "Li, Zhifeng and Liu, Wei",
        venue="CVPR",
        year=2018,
        arxiv="1801.09414",
    )

    def __init__(self, margin: float = 0.4, scale: float = 64.0) -> None:
        super().__init__(scale=scale)
        self.margin = in_range("CosFace margin", margin, 0.0, 1.0)

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample to its own class less m, (B,) -> (B,)."""
        return target - self.margin
