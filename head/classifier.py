"""The classifier over all classes, class-parallel where there are several processes."""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid, normalize

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import ConfigError, DataError, in_range
from facelab.head.base import CLASSIFIERS, Classifier, ClassifierOutput, ClassShard, MarginHead, Terms
from facelab.head.class_rows import Initial, initial_numbers, initial_rows

__all__ = ["CLASSIFIERS", "Classifier", "ClassifierOutput", "FullSoftmax"]

MOST_ROWS = 1000  # of one class


@CLASSIFIERS.register("FullSoftmax")
class FullSoftmax(Classifier):
    """Softmax cross entropy over all classes, or a binary decision on each, as the head's objective says.

    Each process owns the rows of some classes, gathers the embeddings of all processes, and computes the logits of its
    own classes; only sums of (B,) are exchanged, and the loss is that of the global batch on every process. The
    gradient of a row is complete on its owner, so the classifier stays outside of DistributedDataParallel. In one
    process nothing is exchanged.

    The cosines are computed in the rows' precision (fp32) also under autocast: a bf16 cosine has three digits, and
    times a scale of 64 its error is a quarter of a logit.

    Labels outside of 0..C-1 are refused at once on the CPU. On a GPU, where looking at them would stall every step,
    they turn the loss into NaN, which stops training with the number of the step; sources check their labels at start.

    Args:
        num_classes: C, over all processes; at least 2, and no fewer than processes.
        feat_dim: D, the length of an embedding.
        head: Gives the logits, and says what they are for.
        seed: The rows at start; the same for any number of processes.
        initial: ``unit`` rows spread evenly over the sphere (FaceX-Zoo's have norm 1 too), or ``normal`` entries
            (InsightFace). The longer its row, the slower a class turns.
        deviation: Standard deviation of ``normal`` entries, above 0.
        rows_per_class: K sub-centres for each class; a sample's cosine to a class is that to the nearest of them
            (sub-center ArcFace, Deng et al., ECCV 2020, Eq. 2), so that noisy images gather at centres of their own.
            More than 1 needs a head of cosines.

    Attributes:
        weight: Rows of the owned classes, (C_own, D), or (C_own, K, D) if K is more than 1.
        class_parameters: What the head learns of each class, (C_own,) each.
        class_bias: Bias of the owned classes, (C_own,), or None if the head has none.

    Raises:
        ConfigError: If an argument is out of range, or the head does not fit ``rows_per_class``.
    """

    citation: ClassVar[Citation | None] = None
    weight: nn.Parameter
    class_bias: nn.Parameter | None

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        initial: Initial = "unit",
        deviation: float = 0.01,
        rows_per_class: int = 1,
    ) -> None:
        super().__init__()
        in_range("FullSoftmax rows_per_class", rows_per_class, 1, MOST_ROWS)
        if rows_per_class > 1 and not head.normalised:
            raise ConfigError(
                f"FullSoftmax rows_per_class is {rows_per_class}, but {type(head).__name__} takes inner products, "
                "which have no nearest centre; choose a head of cosines."
            )
        world = distributed.world_size()
        in_range("FullSoftmax num_classes", num_classes, max(2, world), math.inf)
        in_range("FullSoftmax deviation", deviation, 0.0, math.inf, low_open=True, high_open=True)
        self.num_classes = num_classes
        self.head = head
        self.shard = ClassShard(*distributed.class_range(num_classes, distributed.rank(), world))
        centres = ClassShard(self.shard.start * rows_per_class, self.shard.stop * rows_per_class)
        rows = initial_rows(centres, feat_dim, initial, deviation, seed)
        self.weight = nn.Parameter(rows if rows_per_class == 1 else rows.view(-1, rows_per_class, feat_dim))
        self.class_parameters = nn.ParameterDict(
            {
                name: nn.Parameter(initial_numbers(self.shard, wanted.low, wanted.high, seed, number))
                for number, (name, wanted) in enumerate(head.class_parameters.items())
            }
        )
        self.class_bias = nn.Parameter(torch.zeros(self.shard.size)) if head.bias else None

    @property
    def row_range(self) -> tuple[int, int]:
        """Classes ``[start, stop)`` that this process owns."""
        return self.shard.start, self.shard.stop

    def row_tensors(self) -> dict[str, Tensor]:
        """``weight``, ``class_bias`` if the head has one, and its class parameters."""
        parameters = {f"class_parameters.{name}": value for name, value in self.class_parameters.items()}
        rows: dict[str, Tensor] = {"weight": self.weight, **parameters}
        return rows if self.class_bias is None else {**rows, "class_bias": self.class_bias}

    def forward(self, embedding: Tensor, labels: Tensor) -> ClassifierOutput:
        """Loss of the global batch. See `Classifier.forward`.

        Raises:
            DataError: If labels on the CPU lie outside of 0..C-1.
        """
        self._check_labels(labels)
        with torch.autocast(embedding.device.type, enabled=False):
            return self._forward(
                distributed.gather_rows(embedding.to(self.weight.dtype)), distributed.gather_labels(labels)
            )

    def _forward(self, features: Tensor, labels: Tensor) -> ClassifierOutput:
        norms = torch.linalg.vector_norm(distributed.use_commonly(features), dim=1)
        product = self._product(features)
        column, owned = self.shard.columns(labels)
        target = distributed.sum_shares(_entry(product, column) * owned)
        terms = self._with_class_parameters(self.head.prepare(target, norms, labels), column, owned)
        terms = self._with_statistics(terms, product, column, owned)
        positive = self.head.scale * self.head.positive(target, terms)
        entropy = self._entropy(positive, self._negatives(product, terms, column, owned))
        regularizer = self.head.regularizer(terms)
        known = (labels >= 0) & (labels < self.num_classes)
        loss = torch.where(known, entropy, math.nan).mean() + regularizer
        return ClassifierOutput(loss, self._metrics(product.detach(), terms, column, owned, regularizer))

    def _product(self, features: Tensor) -> Tensor:
        """Cosines of the batch to the owned classes, or inner products if the head wants those, (B, C_own)."""
        if self.head.normalised:
            cosine = linear(normalize(features), normalize(self.weight, dim=-1).flatten(0, -2))
            # .max and not .amax: of equal cosines one centre gets the gradient
            return cosine if self.weight.ndim == 2 else cosine.view(-1, *self.weight.shape[:2]).max(dim=2).values
        return linear(features, self.weight, self.class_bias)

    def _with_class_parameters(self, terms: Terms, column: Tensor, owned: Tensor) -> Terms:
        own, means = {}, {}
        for name, wanted in self.head.class_parameters.items():
            values = self.class_parameters[name]
            if self.training:
                values.data.clamp_(wanted.smallest, wanted.largest)
            own[name] = distributed.sum_shares(values[column] * owned)
            means[name] = distributed.sum_shares(values.sum()) / self.num_classes
        return replace(terms, own=own, means=means)

    def _entropy(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Loss of each sample, (B,), from its own logit, (B,), and this process's share of the others, (B, C_own)."""
        if self.head.objective == "binary":
            others = distributed.sum_shares(torch.logaddexp(negatives, negatives.new_zeros(())).sum(dim=1))
            return self.head.negative_weight * others - self.head.positive_weight * logsigmoid(positive)
        others = _log_sum_over_processes(negatives.logsumexp(dim=1))
        # -log softmax of the target; this form keeps its digits where the loss is small
        return torch.logaddexp(others - positive, torch.zeros_like(positive))

    def _with_statistics(self, terms: Terms, product: Tensor, column: Tensor, owned: Tensor) -> Terms:
        if type(self.head).statistics is MarginHead.statistics:
            return terms
        with torch.no_grad():
            is_target = torch.zeros_like(product, dtype=torch.bool)
            is_target.scatter_(1, column.unsqueeze(1), owned.unsqueeze(1))
            sums = self.head.statistics(product, terms, ~is_target)
        summed = {name: distributed.all_reduce_sum(value) for name, value in sums.items()}
        return self.head.settle(replace(terms, statistics=summed))

    def _negatives(self, product: Tensor, terms: Terms, column: Tensor, owned: Tensor) -> Tensor:
        """Logits of the owned classes, (B, C_own), out of the way where the class is the sample's own."""
        logits = self.head.scale * self.head.negatives(product, terms.mapped(distributed.use_locally))
        # A finite stand-in for minus infinity: if a process owns nothing but the target, its gradient is 0 and not NaN.
        nothing = torch.finfo(logits.dtype).min
        kept = torch.where(owned, nothing, _entry(logits, column))
        return logits.scatter(1, column.unsqueeze(1), kept.unsqueeze(1))

    @torch.no_grad()
    def _metrics(
        self, product: Tensor, terms: Terms, column: Tensor, owned: Tensor, regularizer: Tensor
    ) -> dict[str, Tensor]:
        nearest = distributed.all_reduce_max(product.amax(dim=1))
        return {
            "accuracy": (nearest <= terms.target).to(product.dtype).mean(),
            "target_cosine": self._target_cosine(terms, column, owned).mean(),
            "norm": terms.norms.detach().mean(),
            "regularizer": regularizer.detach(),
        }

    def _target_cosine(self, terms: Terms, column: Tensor, owned: Tensor) -> Tensor:
        if self.head.normalised:
            return terms.target.detach()
        bias = torch.zeros_like(self.weight[:, 0]) if self.class_bias is None else self.class_bias
        rows = torch.stack([bias, torch.linalg.vector_norm(self.weight, dim=1)])[:, column] * owned
        own_bias, length = distributed.all_reduce_sum(rows)
        cosine: Tensor = (terms.target - own_bias) / (terms.norms * length)
        return cosine

    def _check_labels(self, labels: Tensor) -> None:
        if labels.device.type != "cpu" or labels.numel() == 0:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise DataError(f"label {wrong} is outside of 0..{self.num_classes - 1}, the classes of this classifier.")


def _entry(matrix: Tensor, column: Tensor) -> Tensor:
    """The entry in ``column`` (B,) of each row of a (B, C) matrix, (B,).

    For the backward pass indexing keeps the places alone, where gather would keep the matrix.
    """
    return matrix[torch.arange(len(column), device=column.device), column]


def _log_sum_over_processes(share: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials of all processes' shares, (B,) -> (B,)."""
    if distributed.world_size() == 1:
        return share
    top = distributed.all_reduce_max(share)
    return top + distributed.sum_shares((share - top).exp()).log()
