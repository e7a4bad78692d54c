"""Softmax without a margin, of inner products or of scaled cosines."""

from typing import ClassVar

from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead


@HEADS.register("Softmax")
class Softmax(MarginHead):
    """Softmax cross entropy without a margin.

    By default the classic layer, ``w_j . x + b_j``. With ``normalise`` it is NormFace (Wang et al., ACM MM 2017,
    arXiv:1704.06369, Eq. 8 with a fixed scale): ``s cos(theta_j)``. Unlike NormFace, the scale is not learned.

    Args:
        normalise: Cosines instead of inner products.
        bias: A learned bias for each class; on by default where nothing is normalised.
        scale: s; only with ``normalise``, where it is 32 by default.

    Raises:
        ConfigError: If an argument is out of range, or does not fit ``normalise``.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2017normface",
        title="NormFace: L2 Hypersphere Embedding for Face Verification",
        authors="Wang, Feng and Xiang, Xiang and Cheng, Jian and Yuille, Alan Loddon",
        venue="ACM MM",
        year=2017,
        arxiv="1704.06369",
    )

    def __init__(self, normalise: bool = False, bias: bool | None = None, scale: float | None = None) -> None:
        if scale is not None and not normalise:
            raise ConfigError(f"Softmax scale is {scale!r}, but inner products have none; set normalise: true.")
        if bias and normalise:
            raise ConfigError("Softmax has no bias with normalise: true, because a cosine is compared without one.")
        super().__init__(scale=(32.0 if scale is None else scale) if normalise else 1.0)
        self.normalised = normalise
        self.bias = not normalise if bias is None else bias
