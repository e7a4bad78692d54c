"""CurricularFace: hard negatives count more and more as training goes on."""

from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.angular import add_angle, check_angle
from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("CurricularFace")
class CurricularFace(MarginHead):
    """Adaptive curriculum (Huang et al., CVPR 2020, arXiv:2004.00288, Eq. 5 to 8).

    The target logit is ``s cos(theta + m)``, continued with ``cos(theta) - m sin(m)`` past pi as in the authors'
    program. A negative is hard if ``cos(theta_j) > cos(theta + m)``; it gets ``s cos(theta_j) (t + cos(theta_j))``,
    others ``s cos(theta_j)``. t is the running mean of the target cosines; the current batch moves it before it is
    used.

    t belongs to the global batch, is equal on all processes, kept in checkpoints, and moves in training only.

    Args:
        margin: m, in radians, from 0 up to but not including pi / 2.
        scale: s, the norm given to the normalised features.
        momentum: Share of the current batch in t, above 0 up to 1.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="huang2020curricularface",
        title="CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition",
        authors="Huang, Yuge and Wang, Yuhan and Tai, Ying and Liu, Xiaoming and Shen, Pengcheng and Li, Shaoxin and "
        "Li, Jilin and Huang, Feiyue",
        venue="CVPR",
        year=2020,
        arxiv="2004.00288",
    )
    t: Tensor

    def __init__(self, margin: float = 0.5, scale: float = 64.0, momentum: float = 0.01) -> None:
        super().__init__(scale=scale)
        self.margin = check_angle("CurricularFace margin", margin)
        self.momentum = in_range("CurricularFace momentum", momentum, 0.0, 1.0, low_open=True)
        self.register_buffer("t", torch.zeros(()))

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """Moves t, and adds ``t`` and ``threshold``: the cosine above which a negative is hard, (B,)."""
        if self.training:
            self.t.lerp_(target.detach().mean(), self.momentum)
        # As in the authors' program: past pi the logit is continued, but what is hard is still told by cos(theta + m).
        threshold = add_angle(target.detach(), target.new_full((), self.margin), "none")
        # A copy: backward passes that recompute logits must see t as it was in this step.
        return Terms(labels, target, norms, values={"t": self.t.clone(), "threshold": threshold})

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine of each sample's angle plus m, (B,) -> (B,)."""
        return add_angle(target, target.new_full((), self.margin), "linear")

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, the hard ones times ``t + cos(theta_j)``, (B, C) -> (B, C)."""
        hard = cosine > terms.values["threshold"].unsqueeze(1)
        return torch.where(hard, cosine * (terms.values["t"] + cosine), cosine)
