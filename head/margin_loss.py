"""The loss of a margin head over classes that are spread over processes, whoever owns their rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from facelab import distributed
from facelab.head.base import MarginHead, Terms
from facelab.head.candidates import Candidates, Product, entry
from facelab.head.sample_weight import SampleWeight


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
        norms = torch.linalg.vector_norm(distributed.use_commonly(features), dim=1)
        # Before the negatives, because some heads compare each of them with the target, which is on one process only.
        target = distributed.sum_shares(product.target())
        terms = self.head.prepare(target, norms, labels)
        terms = self._with_statistics(self._with_class_parameters(terms, candidates), product)
        positive = self.head.scale * self.head.positive(target, terms)
        entropy = self._entropy(positive, terms, product)
        regularizer = self.head.regularizer(terms)
        # NaN is found by the run's check for finite losses; an error here would make every step wait for the device.
        known = (labels >= 0) & (labels < self.num_classes)
        losses = self._weighted(torch.where(known, entropy, math.nan), weight)
        loss = losses.mean() + regularizer
        return ClassifierOutput(loss, self._metrics(terms, candidates, product, regularizer))

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
        with torch.no_grad():
            parts = product.over_chunks(lambda cosine, part: self.head.statistics(cosine, terms, part.negatives()))
        sums = {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in parts[0]}
        summed = {name: distributed.all_reduce_sum(value) for name, value in sums.items()}
        return self.head.settle(replace(terms, statistics=summed))

    def _entropy(self, positive: Tensor, terms: Terms, product: Product) -> Tensor:
        """Loss of each sample, (B,), from its own logit, (B,), and the logits of all other classes."""
        # Once and not for each chunk: its backward pass is a collective, and processes may differ in their chunks.
        local = terms.mapped(distributed.use_locally)

        def logits(cosine: Tensor, part: Candidates) -> Tensor:
            return self._logits_of_negatives(cosine, part, local)

        if self.head.objective == "binary":
            parts = product.over_chunks(lambda cosine, part: _summed(_softplus(logits(cosine, part)), part))
            others = distributed.sum_shares(torch.stack(parts).sum(dim=0))
            return self.head.negative_weight * others - self.head.positive_weight * logsigmoid(positive)
        parts = product.over_chunks(lambda *chunk: logits(*chunk).logsumexp(dim=1))
        others = log_sum_over_processes(torch.stack(parts).logsumexp(dim=0))
        # -log softmax of the target; this form keeps its digits where the loss is small
        return torch.logaddexp(others - positive, torch.zeros_like(positive))

    def _logits_of_negatives(self, cosine: Tensor, part: Candidates, terms: Terms) -> Tensor:
        """Logits of the classes of a chunk, (B, C_chunk), out of the way where the class is no negative."""
        logits = self.head.scale * self.head.negatives(cosine, terms)
        # A finite stand-in for minus infinity: where a chunk holds nothing but the target, its gradient is 0, not NaN.
        nothing = torch.finfo(logits.dtype).min
        # Each sample writes one column, so that no shape depends on where targets are; others write what was there.
        kept = torch.where(part.owned, nothing, entry(logits, part.column))
        logits = logits.scatter(1, part.column.unsqueeze(1), kept.unsqueeze(1))
        return logits if part.excluded is None else logits.masked_fill(part.excluded, nothing)

    @torch.no_grad()
    def _metrics(
        self, terms: Terms, candidates: Candidates, product: Product, regularizer: Tensor
    ) -> dict[str, Tensor]:
        nearest, own = distributed.all_reduce_max(torch.stack(product.over_chunks(_nearest)).amax(dim=0))
        return {
            # The nearest is a maximum that includes the sample's own class, so it can only be equal or above.
            "accuracy": (nearest <= own).to(nearest.dtype).mean(),
            "target_cosine": self._target_cosine(terms, candidates).mean(),
            "norm": terms.norms.detach().mean(),
            "regularizer": regularizer.detach(),
        }

    def _target_cosine(self, terms: Terms, candidates: Candidates) -> Tensor:
        if self.head.normalised:
            return terms.target.detach()
        # What is logged is a cosine also where the head takes inner products.
        length = torch.linalg.vector_norm(candidates.rows[candidates.column], dim=1)
        bias = torch.zeros_like(length) if candidates.bias is None else candidates.bias[candidates.column]
        own_bias, own_length = distributed.all_reduce_sum(torch.stack([bias, length]) * candidates.owned)
        cosine: Tensor = (terms.target - own_bias) / (terms.norms * own_length)
        return cosine


def _nearest(cosine: Tensor, part: Candidates) -> Tensor:
    """Largest product of each sample with a class that counts, and that with its own class, (B, C) -> (2, B).

    Both from one matrix: computed in another way, as `Product.target` may be, its last digits differ.
    """
    own = torch.where(part.owned, entry(cosine, part.column), -math.inf)
    if part.excluded is not None:
        cosine = cosine.masked_fill(part.excluded, -math.inf)
    return torch.stack([cosine.amax(dim=1), own])


def _softplus(logits: Tensor) -> Tensor:
    return torch.logaddexp(logits, logits.new_zeros(()))


def _summed(costs: Tensor, part: Candidates) -> Tensor:
    """Sum over classes, (B, C) -> (B,), where a sampled class counts for all that it stands for."""
    return (costs if part.weight is None else costs * part.weight).sum(dim=1)


def log_sum_over_processes(share: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials of all processes' shares, (B,) -> (B,).

    Exponentials of logits overflow fp32 past 88 (CircleLoss scales to 256), and logarithms of sums cannot be added. So
    the largest share goes round first, without gradient because it cancels, and then a sum of what is at most 1 each.
    """
    if distributed.world_size() == 1:
        return share
    top = distributed.all_reduce_max(share)
    return top + distributed.sum_shares((share - top).exp()).log()
