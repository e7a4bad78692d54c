"""A contrastive loss for pairs with a bad image, against a queue of earlier images."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.rows.stored_numbers import require_whole
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.selection import positive_pairs

NOBODY = -1
MOST = 10**7  # images in the queue
NEGATIVES = 128  # with which the loss has its size, whatever the queue's


@OBJECTIVES.register("QualityQueue")
class QualityQueue(Objective):
    """The quality-guided queue of QGFace (Song and Wang, 2023, arXiv:2312.17494), to stand beside class rows.

    For each pair (i, j) of a person's images of which one is bad, the softmax loss
    ``-log(exp(s cos_ij) / (exp(s cos_ij) + sum_q exp(s cos_iq)))`` over the images q of other people in the queue, both
    ways; times ``log 129 / log(1 + size)``. Images of the batch enter the queue, the oldest make room. How good one
    is follows from the length of its embedding as in AdaFace: ``(clip(h (|x| - mean) / deviation, -1, 1) + 1) / 2``,
    with moving averages of both. It says something where a head such as AdaFace makes lengths follow quality.

    In place of the paper's two views of an image the sampler draws several images of a person, from a source that has
    them in both qualities, such as ``Concat`` of one and ``Degraded``. Stored embeddings stay as they are, while the
    paper moves them with the rows of their classes, which this loss does not see.

    Args:
        num_classes: C.
        feat_dim: D, the length of an embedding.
        size: Images in the queue, 1 to 10^7.
        scale: s, above 0; AdaFace's.
        threshold: Quality below which an image is a bad one, 0 to 1.
        h: How steeply quality follows length, above 0; AdaFace's.
        rate: Part of the moving averages that each batch brings, above 0, at most 1.

    Attributes:
        queue: Embeddings of unit length, (size, D).
        people: Whose they are, int64, (size,); -1 where there is none yet.
        next: Place of the next one, int64, ().
        length: Moving averages of mean and deviation of the lengths, (2,); zeros before the first batch.

    Raises:
        ConfigError: If an argument is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="song2023qgface",
        title="QGFace: Quality-Guided Joint Training For Mixed-Quality Face Recognition",
        authors="Song, Youzhe and Wang, Feng",
        venue="arXiv preprint",
        year=2023,
        arxiv="2312.17494",
    )
    queue: Tensor
    people: Tensor
    next: Tensor
    length: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        size: int = 8192,
        scale: float = 64.0,
        threshold: float = 0.2,
        h: float = 0.333,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.size = int(in_range("QualityQueue size", size, 1, MOST))
        self.scale = in_range("QualityQueue scale", scale, 0.0, math.inf, low_open=True, high_open=True)
        self.threshold = in_range("QualityQueue threshold", threshold, 0.0, 1.0)
        self.h = in_range("QualityQueue h", h, 0.0, math.inf, low_open=True, high_open=True)
        self.rate = in_range("QualityQueue rate", rate, 0.0, 1.0, low_open=True)
        self.register_buffer("queue", torch.zeros(size, feat_dim))
        self.register_buffer("people", torch.full((size,), NOBODY))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))
        self.register_buffer("length", torch.zeros(2))

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Mean over the pairs of the global batch, (); those of two good images add 0."""
        quality, unit = self._quality(embedding.detach().norm(dim=1)), F.normalize(embedding)
        query, key = positive_pairs(label, both=True).unbind(dim=1)
        others = self.scale * unit @ self.queue.clone().T  # this pass's, for the gradient too: the queue moves below
        absent = (self.people == NOBODY) | (self.people == label.unsqueeze(1))
        # Where all are masked the loss is 0, and masked_fill drops the NaN of its gradient.
        negative = others.masked_fill(absent, -torch.inf).logsumexp(dim=1)
        own = self.scale * (unit[query] * unit[key]).sum(dim=1)
        bad = torch.minimum(quality[query], quality[key]) < self.threshold
        loss = F.softplus(negative[query] - own) * bad
        self._store(unit.detach(), label)
        return loss.sum() / max(len(loss), 1) * (math.log1p(NEGATIVES) / math.log1p(self.size))

    @torch.no_grad()
    def _quality(self, length: Tensor) -> Tensor:
        """Quality of images from the lengths of their embeddings, (B,), 0 to 1; moves the averages."""
        now = torch.stack([length.mean(), length.std(correction=0)])
        self.length.copy_(torch.where(self.length.any(), self.length.lerp(now, self.rate), now))
        mean, deviation = self.length
        quality: Tensor = ((self.h * (length - mean) / deviation.clamp_min(1e-3)).clamp(-1.0, 1.0) + 1.0) / 2.0
        return quality

    @torch.no_grad()
    def _store(self, unit: Tensor, label: Tensor) -> None:
        """The oldest make room."""
        unit, label = unit[-self.size :], label[-self.size :]  # no place is written twice
        place = (self.next + torch.arange(len(label), device=label.device)) % self.size
        self.queue.index_copy_(0, place, unit)
        self.people.index_copy_(0, place, label)
        self.next.add_(len(label)).remainder_(self.size)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        ranges = {"people": (NOBODY, self.num_classes - 1), "next": (0, self.size - 1)}
        require_whole(state, prefix, ranges, "QualityQueue")
        super()._load_from_state_dict(state, prefix, *rest)
