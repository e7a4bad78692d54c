"""The other side of `classes.py`: class rows as the most used program has them, written out plainly.

Partial FC of InsightFace's arcface_torch (its version 2): sampled rows are taken by indexing, so that their gradient is
dense; ``torch.optim.SGD`` decays and moves every row; normalised rows, logits and probabilities are whole fp32
matrices. Written from the paper (An et al., CVPR 2022) and the behaviour of the program.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

MARGIN, SCALE = 0.5, 64.0


class DenseRows(nn.Module):
    """Class rows of which a share takes part in each step, with ArcFace and softmax.

    Args:
        num_classes: C.
        feat_dim: D.
        sample_rate: Share of the classes that takes part, those of the batch among them; 1 takes all.
    """

    def __init__(self, num_classes: int, feat_dim: int, sample_rate: float) -> None:
        super().__init__()
        self.count = int(sample_rate * num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, feat_dim).normal_(0, 0.01))

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Loss () of embeddings (B, D) of classes (B,)."""
        rows = self.weight
        if self.count < len(rows):
            with torch.no_grad():
                positive = labels.unique()
                chance = torch.rand(len(rows), device=labels.device)
                chance[positive] = 2.0
                taken = chance.topk(max(self.count, len(positive))).indices.sort().values
                labels = torch.searchsorted(taken, labels)
            rows = rows[taken]
        logits = linear(normalize(embedding), normalize(rows)).clamp(-1, 1)
        sample = torch.arange(len(labels), device=labels.device)
        cosine = logits[sample, labels]
        angle = (cosine.clamp(-1 + 1e-7, 1 - 1e-7).acos() + MARGIN).clamp_max(math.pi)
        return cross_entropy(SCALE * logits.index_put((sample, labels), angle.cos()), labels)
