"""The contract of classifiers: who owns the class rows, and what changes them. The loss over them is `margin_loss`.

In each step, `Classifier.forward` gathers the batch of all processes and asks its owner of rows

1. `Classifier.candidates`: which classes take part here, with their rows and where the targets stand among them;
2. `Classifier.product`: the cosines of the batch to them, whole or in chunks;

and `MarginLoss` makes the loss of these two. Rows that are parameters get their gradients, and an optimiser moves them:
the run's, or one that `Classifier.optimizer` brings. Whatever else changes, queues or running means, changes in
`Classifier.after_update`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.optim import Optimizer

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import ConfigError, DataError
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates, Product, WholeProduct, cosines
from facelab.head.chunked_gradient import ChunkedGradient
from facelab.head.class_precision import ClassPrecision, rounds_on_its_own
from facelab.head.fused_product import FusedProduct
from facelab.head.margin_loss import ClassifierOutput, MarginLoss
from facelab.head.reused_memory import ReusedMemory
from facelab.head.sample_weight import SampleWeight
from facelab.registry import Registry

__all__ = ["CLASSIFIERS", "Classifier", "ClassifierOutput", "UpdateRule", "require_no_class_numbers"]

LARGEST_WHOLE = 2**20
"""Most products of samples and rows that are computed at once and kept for the backward pass: 4 MiB in fp32. Of more,
chunks are quicker."""


@dataclass(frozen=True)
class UpdateRule:
    """How class rows are to move: the ``optimizer`` section of a run, with its ``class_lr`` as ``lr``.

    Attributes:
        name: ``sgd`` or ``adamw``.
        lr: Learning rate before the schedule.
        weight_decay: Per update and unit of learning rate.
        momentum: Of ``sgd``.
        nesterov: Nesterov's form of it.
        betas: Decay of ``adamw``'s two averages.
        eps: Added to ``adamw``'s denominator.
        decay_biases: Whether weight decay also acts on what has one number for each row.
    """

    name: Literal["sgd", "adamw"]
    lr: float
    weight_decay: float
    momentum: float
    nesterov: bool
    betas: tuple[float, float]
    eps: float
    decay_biases: bool = True


class Classifier(nn.Module, ABC):
    """Owner of the class rows. It stays outside of DistributedDataParallel: each process holds its own rows.

    A classifier is built from what the program supplies (``num_classes``, ``feat_dim``, ``head``, ``seed``) and from
    its options in the configuration. Rows, and all that has a row for each class, are parameters or buffers named in
    `row_tensors`; the rest of its state is equal on all processes.

    Attributes:
        num_classes: C, over all processes; labels are 0 to C - 1.
        head: Gives the logits, and says what they are for.
        sample_weight: Weighs the samples of a batch by their losses, or None; whoever builds the classifier sets it.
        class_precision: Format in which `product` multiplies rows with features, to be added in fp32; set likewise.
        class_skip: Share of the gradient that chunks of the classes may lack, see `FusedProduct`; set likewise.
        class_compile: Whether passes over chunks of the classes are compiled, for a GPU; set likewise.
        row_gradient: Takes up what the gradient of the rows is made of, for an owner whose `optimizer` makes that
            gradient chunk by chunk; None where rows get their gradient as other parameters do.
        step_memory: Of what each step makes of many rows.
    """

    citation: ClassVar[Citation | None] = None
    num_classes: int
    head: MarginHead
    sample_weight: SampleWeight | None = None
    class_precision: ClassPrecision = "fp32"
    class_skip: float = 0.0
    class_compile: bool = False
    row_gradient: ChunkedGradient | None = None

    def __init__(self) -> None:
        super().__init__()
        self.step_memory = ReusedMemory()

    @property
    @abstractmethod
    def row_range(self) -> tuple[int, int]:
        """Rows ``[start, stop)`` that this process owns, of those of all processes in their order.

        However many processes there are, together they own the same number; else a run cannot go on with others.
        """

    @abstractmethod
    def row_tensors(self) -> dict[str, Tensor]:
        """Tensors with a row for each owned class, by their names in ``state_dict``; the rest is equal everywhere."""

    @abstractmethod
    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """The rows that take part in this step on this process.

        Args:
            features: Embeddings of the global batch, (B, D), without gradient, equal on all processes.
            labels: Their classes, int64, (B,).
        """

    def product(self, features: Tensor, candidates: Candidates) -> Product:
        """Cosines of the batch, (B, D), to the candidates, or inner products if the head wants those; with gradient."""
        large = len(features) * candidates.rows.shape[:-1].numel() > LARGEST_WHOLE
        asked = self.class_precision != "fp32" or self.class_compile or self.row_gradient is not None
        if large or asked or rounds_on_its_own(features.device):
            return FusedProduct(
                features,
                candidates,
                self.head.normalised,
                self.class_precision,
                skip=self.class_skip,
                memory=self.step_memory,
                later=self.row_gradient,
                compiled=self.class_compile,
            )
        if self.head.normalised:
            return WholeProduct(cosines(features, candidates.rows), candidates)
        return WholeProduct(linear(features, candidates.rows, candidates.bias), candidates)

    def optimizer(self, rule: UpdateRule) -> Optimizer | None:
        """An optimiser for rows that do not move as the run's optimiser would move them.

        Its groups have ``lr``, which the schedule scales; each process's is over its own rows. It sees the gradients
        as the run's does: unscaled, clipped, and checked. A gradient may be a sparse COO tensor with a value for each
        row that took part. Of its state, tensors whose first dimension is that of their parameter are stored with the
        rows. If it has ``_step_supports_amp_scaling``, it must leave everything as it is where its ``found_inf`` is 1;
        otherwise parameters and state are copied for each update and put back. If it has ``check_state``, that is
        called with each parameter and its stored state before a run goes on, and refuses by a `CheckpointError`. If it
        has ``makes_gradients``, parameters without ``grad`` move too: what their gradients are made of is neither
        clipped nor part of the norm, and the loss scale that is still in it is its ``grad_scale``, or None.

        Args:
            rule: What the settings say of the rows.

        Returns:
            None if the run's optimiser moves all parameters.
        """
        return None

    def after_update(self) -> None:
        """What changes without a gradient. The mode calls it once after each update of the optimisers."""

    def check_rows(self) -> None:
        """Called once rows of a checkpoint are in their places, beside the rest of its state.

        Raises:
            CheckpointError: If training cannot go on with them, by whole numbers that point nowhere for example.
        """

    @property
    def row_dtype(self) -> torch.dtype:
        """Precision of the rows, in which all is computed."""
        return next(tensor.dtype for tensor in self.row_tensors().values() if tensor.is_floating_point())

    def forward(self, embedding: Tensor, labels: Tensor, weight: Tensor | None = None) -> ClassifierOutput:
        """Loss of the global batch.

        Cosines are computed in the rows' precision (fp32) also under autocast: one that is stored as bf16 has three
        digits, and times a scale of 64 its error is a quarter of a logit. With `class_precision` factors may have
        fewer digits, but never sums.

        Args:
            embedding: This process's embeddings, (B, D), with B equal on all processes.
            labels: Their global classes, int64, (B,).
            weight: What the loss of each is multiplied by before the mean, (B,), or None for 1; it may have a gradient.

        Raises:
            DataError: If labels on the CPU lie outside of 0..C-1. On a GPU, where looking at them would stall every
                step, they turn the loss into NaN, which stops training with the number of the step; sources check
                their labels at start.
        """
        self._check_labels(labels)
        with torch.autocast(embedding.device.type, enabled=False):
            features = distributed.gather_rows(embedding.to(self.row_dtype))
            labels = distributed.gather_labels(labels)
            if weight is not None:
                weight = distributed.gather_rows(weight.to(self.row_dtype))
            return self.loss(features, labels, weight)

    def loss(self, features: Tensor, labels: Tensor, weight: Tensor | None) -> ClassifierOutput:
        """The head's loss of the batch against the candidates; for owners whose loss has more to it.

        Args:
            features: Embeddings of the global batch, (B, D), equal on all processes, with gradient.
            labels: Their classes, int64, (B,).
            weight: As in `forward`, of the global batch.
        """
        # Which classes take part is a choice without gradient, also for owners that choose by the features.
        candidates = self.candidates(features.detach(), labels)
        loss = MarginLoss(self.head, self.num_classes, self.sample_weight)
        return loss(features, labels, candidates, self.product(features, candidates), weight)

    def _check_labels(self, labels: Tensor) -> None:
        # On a GPU a look at the labels would wait for the device in every step; there a wrong one makes the loss NaN.
        if labels.device.type != "cpu" or labels.numel() == 0:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            wrong = low if low < 0 else high
            raise DataError(f"label {wrong} is outside of 0..{self.num_classes - 1}, the classes of this classifier.")


def require_no_class_numbers(owner: str, head: MarginHead) -> None:
    """For owners whose rows come and go, so that nothing can be learned beside them.

    Raises:
        ConfigError: If the head learns a bias or another number for each class.
    """
    learned = [*(["a bias"] if head.bias else []), *(f"a {name}" for name in head.class_parameters)]
    if learned:
        raise ConfigError(
            f"{owner} keeps no learned numbers, but {type(head).__name__} learns {learned[0]} for each class; choose "
            "another head, or FullSoftmax."
        )


CLASSIFIERS: Registry[Classifier] = Registry(
    "classifier", "facelab.head", supplied=("num_classes", "feat_dim", "head", "seed")
)
