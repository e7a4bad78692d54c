"""Shared by the tests of heads: logits as a matrix, and a classifier with given rows."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead
from facelab.head.rows.full_softmax import FullSoftmax


@pytest.fixture
def logits_of() -> Callable[[MarginHead, Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]:
    """Logits (B, C) of features (B, D), class rows (C, [K,] D), labels (B,) and the classes' own numbers (B,)."""

    def compute(head: MarginHead, features: Tensor, rows: Tensor, labels: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        unit = torch.nn.functional.normalize(rows, dim=-1).view(len(rows), -1, rows.shape[-1])
        cosine = torch.einsum("bd,ckd->bck", torch.nn.functional.normalize(features), unit).amax(dim=2)
        target = cosine.gather(1, labels[:, None]).squeeze(1)
        terms = replace(head.prepare(target, features.norm(dim=1), labels), own=own)
        negative = torch.ones_like(cosine, dtype=torch.bool).scatter_(1, labels[:, None], False)
        terms = head.use_statistics(replace(terms, statistics=head.statistics(cosine, terms, negative)))
        positive = head.positive(target, terms)
        return head.scale * head.negatives(cosine, terms).scatter(1, labels[:, None], positive[:, None])

    return compute


@pytest.fixture
def classifier_of() -> Callable[[MarginHead, Tensor], FullSoftmax]:
    """A full softmax with the given class rows (C, D), in their precision."""

    def build(head: MarginHead, rows: Tensor) -> FullSoftmax:
        classifier = FullSoftmax(num_classes=rows.shape[0], feat_dim=rows.shape[1], head=head).to(rows.dtype)
        classifier.weight.data.copy_(rows)
        return classifier

    return build
