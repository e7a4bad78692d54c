"""The loss of a margin head over classes that are spread over processes, whoever owns their rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from facelab import distributed
from facelab.head.base import MarginHead, Terms
from facelab.head.candidates import Candidates, Nearest, Product
from facelab.head.reductions import REDUCTIONS
from facelab.head.sample_weight import SampleWeight

SMALLEST_PRODUCT = 1e-24  # of the norms of a feature and a row


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier gives.

    Attributes:
        loss: Mean over the global batch, (), equal on all processes.
        metrics: Detached () scalars over the global batch: ``accuracy`` (share of samples that are nearest to their own
            class), ``target_cosine`` (mean), ``norm`` (mean norm of the embeddings), ``regularizer``.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True)
class LossParts:
    """What the loss of a batch comes from, equal on all processes but for ``nearest``.

    Attributes:
        terms: Of this step.
        positive: Logit of each sample's own class, with its margin, (B,).
        others: The logits of all other classes of all processes, (B,): the logarithm of the sum of their exponentials,
            or with a binary objective the sum of ``log(1 + exp(logit))``.
        nearest: Largest product of each sample with a class of this process, and that with its own class, (2, B).
    """

    terms: Terms
    positive: Tensor
    others: Tensor
    nearest: Tensor


@dataclass(frozen=True)
class MarginLoss:
    """Softmax cross entropy over all classes, or a binary decision on each, as the head's objective says.

    Every process has the features of all processes and the candidates that it owns. It computes the logits of these
    alone; what is exchanged are sums over classes, a number for each sample, so that the traffic does not grow with
    the classes. Nearly all the rest is repeated on every process with equal numbers. Where the two meet, gradients
    must neither get lost nor be counted once for each process; `facelab.distributed` has the four rules:

    - A sum over processes (`sum_shares`) is the same number everywhere, and everything behind it is repeated, so each
      share gets that one gradient, not the sum of equal ones.
    - Terms with gradient that the logits of negatives read (`use_locally`) meet other classes on each process: their
      gradients differ, and are added.
    - Features that everybody repeats the same work with, for norms and regularisers (`use_commonly`), would bring
      their gradient once from each process when `gather_rows` adds them: it is divided first.
    - A class row needs nothing: its owner has computed its logits for the whole global batch, so its gradient is
      complete there. Hence rows stay outside of DistributedDataParallel, which would average different people.

    Attributes:
        head: Gives the logits, and says what they are for.
        num_classes: C, over all processes, whether they take part or not.
        sample_weight: Weighs the samples by their losses, or None.
    """

    head: MarginHead
    num_classes: int
    sample_weight: SampleWeight | None = None

    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        candidates: Candidates,
        product: Product,
        weight: Tensor | None = None,
    ) -> ClassifierOutput:
        """Loss of the global batch.

        Args:
            features: Embeddings of all processes, (B, D), from `distributed.gather_rows`.
            labels: Their global classes, int64, (B,). One outside of 0..C-1 makes the loss NaN.
            candidates: The classes that take part on this process.
            product: Of ``features`` with them.
            weight: Of each sample, from `distributed.gather_rows`, (B,), on top of `sample_weight`; it may have a
                gradient.
        """
        parts = self.parts(features, labels, candidates, product)
        return self.output(self.entropy(parts), parts, candidates, weight)

    def parts(self, features: Tensor, labels: Tensor, candidates: Candidates, product: Product) -> LossParts:
        """The first half: the logit of each sample's own class, and what its objective makes of all others.

        Args:
            features: As in a call.
            labels: As in a call.
            candidates: As in a call.
            product: As in a call.
        """
        norms = torch.linalg.vector_norm(distributed.use_commonly(features), dim=1)
        # Before the negatives, because some heads compare each of them with the target, which is on one process only.
        target = distributed.sum_shares(product.target())
        terms = self.head.prepare(target, norms, labels)
        terms = self._with_statistics(self._with_class_parameters(terms, candidates), product)
        positive = self.head.scale * self.head.positive(target, terms)
        # Once and not for each chunk: its backward pass is a collective, and processes may differ in their chunks.
        local = terms.mapped(distributed.use_locally)
        nearest = Nearest()
        others = REDUCTIONS[self.head.objective].over_processes(product.over_negatives(self.head, local, nearest))
        return LossParts(terms, positive, others, nearest.seen)

    def entropy(self, *parts: LossParts) -> Tensor:
        """Loss of each sample, (B,), without the regulariser.

        Args:
            parts: Of one product. With a softmax also of several, such as parameters and a bank of means: their sums
                over other classes are added in one logarithm, each measured by its own logit of the sample's class,
                ``log(1 + sum_i sum_j exp(z_ij - z_iy))`` (the two anchors of LVFace's PCO, arXiv:2501.13420).
        """
        if self.head.objective == "binary":
            losses = [
                self.head.negative_weight * one.others - self.head.positive_weight * logsigmoid(one.positive)
                for one in parts
            ]
            return torch.stack(losses).sum(dim=0)
        # -log softmax of the target; this form keeps its digits where the loss is small
        odds = [one.others - one.positive for one in parts]
        return torch.logaddexp(reduce(torch.logaddexp, odds), torch.zeros_like(odds[0]))

    def output(
        self, entropy: Tensor, parts: LossParts, candidates: Candidates, weight: Tensor | None = None
    ) -> ClassifierOutput:
        """The second half: the samples weighed, mean and regulariser, and the metrics of a step.

        Args:
            entropy: Loss of each sample, (B,).
            parts: Whose terms and metrics it is.
            candidates: As in a call.
            weight: As in a call.
        """
        regularizer = self.head.regularizer(parts.terms)
        labels = parts.terms.labels
        # NaN is found by the run's check for finite losses; an error here would make every step wait for the device.
        known = (labels >= 0) & (labels < self.num_classes)
        losses = self._weighted(torch.where(known, entropy, math.nan), weight)
        loss = losses.mean() + regularizer
        return ClassifierOutput(loss, self._metrics(parts, candidates, regularizer))

    def _weighted(self, losses: Tensor, weight: Tensor | None) -> Tensor:
        if self.sample_weight is not None:
            losses = losses * self.sample_weight(losses)
        return losses if weight is None else losses * distributed.use_commonly(weight)

    def _with_class_parameters(self, terms: Terms, candidates: Candidates) -> Terms:
        own, means = {}, {}
        for name in self.head.class_parameters:
            values = candidates.class_parameters[name]
            own[name] = distributed.sum_shares(candidates.at_target(values))
            # Sampled classes stand for all, so the weighted sum estimates that over all.
            counted = values if candidates.weight is None else values * candidates.weight
            means[name] = distributed.sum_shares(counted.sum()) / self.num_classes
        return replace(terms, own=own, means=means)

    def _with_statistics(self, terms: Terms, product: Product) -> Terms:
        # Most heads have none, and are spared another walk over all classes.
        if type(self.head).statistics is MarginHead.statistics:
            return terms
        sums: dict[str, Tensor] = {}

        def add(cosine: Tensor, part: Candidates) -> None:
            for name, value in self.head.statistics(cosine, terms, part.negatives()).items():
                sums[name] = sums[name] + value if name in sums else value

        product.over_chunks(add)
        summed = {name: distributed.all_reduce_sum(value) for name, value in sums.items()}
        return self.head.use_statistics(replace(terms, statistics=summed))

    @torch.no_grad()
    def _metrics(self, parts: LossParts, candidates: Candidates, regularizer: Tensor) -> dict[str, Tensor]:
        nearest, own = distributed.all_reduce_max(parts.nearest)
        return {
            # The nearest is a maximum that includes the sample's own class, so it can only be equal or above.
            "accuracy": (nearest <= own).to(nearest.dtype).mean(),
            "target_cosine": self._target_cosine(parts.terms, candidates).mean(),
            "norm": parts.terms.norms.detach().mean(),
            "regularizer": regularizer.detach(),
        }

    def _target_cosine(self, terms: Terms, candidates: Candidates) -> Tensor:
        if self.head.normalised:
            return terms.target.detach()
        # What is logged is a cosine also where the head takes inner products.
        length = torch.linalg.vector_norm(candidates.rows[candidates.column], dim=1)
        bias = torch.zeros_like(length) if candidates.bias is None else candidates.bias[candidates.column]
        own_bias, own_length = distributed.all_reduce_sum(torch.stack([bias, length]) * candidates.owned)
        # The product of norms may be 0, as may what it divides: no direction counts as a right angle.
        cosine: Tensor = (terms.target - own_bias) / (terms.norms * own_length).clamp_min(SMALLEST_PRODUCT)
        return cosine
