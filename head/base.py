"""The contract of heads, and their registry.

`MarginLoss` drives a head: cosines of a batch to classes go in, logits of softmax come out. Whose rows the classes are
is a matter of the classifier. Every process holds some of the classes; a chunk is some of those. Once a step, in this
order:

1. `MarginHead.prepare` with the cosines to the targets: on every process alike; buffers move here and
   in `use_statistics` only.
2. `MarginHead.statistics`, if the head overrides it: sums over negatives, added over chunks and processes; then
   `MarginHead.use_statistics` with these sums, once and on every process alike: here buffers that depend on them move.
3. `MarginHead.positive` once, and `MarginHead.negatives` chunk by chunk: pure functions of their arguments.
4. `MarginHead.regularizer`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.registry import Registry


@dataclass(frozen=True)
class ClassShard:
    """Classes ``[start, stop)``, the columns of a matrix of cosines."""

    start: int
    stop: int

    @classmethod
    def of_this_process(cls, num_classes: int, what: str = "classes") -> Self:
        """What this process owns where all of them share ``num_classes`` classes evenly.

        Args:
            num_classes: On all processes together.
            what: Names them in the message.

        Raises:
            ConfigError: If there are fewer classes than processes.
        """
        if num_classes < distributed.world_size():
            raise ConfigError(
                f"there are {num_classes} {what} for {distributed.world_size()} processes, and each owns "
                "at least one; start fewer processes."
            )
        return cls(*distributed.class_range(num_classes, distributed.rank(), distributed.world_size()))

    @property
    def size(self) -> int:
        """Number of classes."""
        return self.stop - self.start

    def columns(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where the targets stand.

        Args:
            labels: Global classes, int64, (B,).

        Returns:
            Column of each target, int64, (B,), some valid column where the target is elsewhere; and whether it is here,
            bool, (B,).
        """
        owned = (labels >= self.start) & (labels < self.stop)
        # A valid column for every sample: to select those that are owned, the host would wait for how many they are.
        return (labels - self.start).clamp(0, self.size - 1), owned


@dataclass(frozen=True)
class ClassParameter:
    """A learned number for each class, which classifiers hold with the class rows.

    Attributes:
        low: At start, classes are spread evenly from here ...
        high: ... to here.
        smallest: Values are put back to at least this before each training step.
        largest: And to at most this.
    """

    low: float
    high: float
    smallest: float = float("-inf")
    largest: float = float("inf")


@dataclass(frozen=True)
class Terms:
    """What a step knows of the global batch, equal on all processes.

    Attributes:
        labels: Global class of each sample, int64, (B,).
        target: Cosine of each sample to its own class, (B,).
        norms: Norm of each embedding, (B,).
        values: What the head's `prepare` adds for its other methods: margins, thresholds, copies of buffers.
        statistics: Sums over all negatives of all processes, if the head has `statistics`.
        own: Each of the head's `class_parameters` for the class of each sample, (B,).
        means: Each of the head's `class_parameters`, the mean over all classes, ().
    """

    labels: Tensor
    target: Tensor
    norms: Tensor
    values: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    own: Mapping[str, Tensor] = field(default_factory=dict)
    means: Mapping[str, Tensor] = field(default_factory=dict)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Terms":
        """The same with ``change`` applied to everything that has a gradient."""

        def changed(tensor: Tensor) -> Tensor:
            return change(tensor) if tensor.requires_grad else tensor

        values, own, means = (
            {name: changed(value) for name, value in held.items()} for held in (self.values, self.own, self.means)
        )
        return replace(
            self, target=changed(self.target), norms=changed(self.norms), values=values, own=own, means=means
        )


class MarginHead(nn.Module):
    """Turns cosines into logits; most heads override `positive` alone. The base is softmax of scaled cosines.

    Cosines, norms and all that follows come in at least fp32, also under autocast.

    Attributes:
        objective: ``softmax`` over all classes, or ``binary`` decisions class by class.
        uses_norm: Whether the norm of an embedding has a meaning here; backbones of unit norm do not fit such heads.
        scale: s, multiplies what `positive` and `negatives` return.
        normalised: Whether the head wants cosines; otherwise inner products of embeddings and class rows.
        bias: Whether each class has a learned bias, added to those inner products.
        class_parameters: Learned numbers of each class that the head wants, by name; they come back as ``terms.own``
            and ``terms.means``.
        positive_weight: Weight of the decision on a sample's own class; ``binary`` only.
        negative_weight: Weight of each decision on another class; ``binary`` only.
    """

    citation: ClassVar[Citation | None] = None
    objective: ClassVar[Literal["softmax", "binary"]] = "softmax"
    uses_norm: ClassVar[bool] = False

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = in_range(f"{type(self).__name__} scale", scale, 0.0, float("inf"), low_open=True, high_open=True)
        self.normalised = True
        self.bias = False
        self.class_parameters: Mapping[str, ClassParameter] = {}
        self.positive_weight = self.negative_weight = 1.0

    def prepare(self, target: Tensor, norms: Tensor, labels: Tensor) -> Terms:
        """What the other methods need to know of this step.

        Args:
            target: Cosine of each sample of the global batch to its own class, (B,).
            norms: Norm of each embedding, (B,).
            labels: Global classes, int64, (B,).
        """
        return Terms(labels=labels, target=target, norms=norms)

    def statistics(self, cosine: Tensor, terms: Terms, negative: Tensor) -> Mapping[str, Tensor]:
        """Sums over the negatives of a chunk; they are added over chunks and processes, and carry no gradient.

        Args:
            cosine: Cosines to the classes of a chunk, (B, C).
            terms: Of this step.
            negative: How many classes each stands for as a negative of each sample, (B, C), to multiply by: 0 where
                it is the sample's own, else 1, and more where the other classes were sampled; bool if all are 0 or 1.

        Returns:
            Tensors of a shape that does not depend on the chunk, by name; they come back as ``terms.statistics``.
        """
        return {}

    def use_statistics(self, terms: Terms) -> Terms:
        """What follows from ``terms.statistics``, for heads that have them: the same terms with values added."""
        return terms

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine with margin of each sample to its own class, (B,) -> (B,)."""
        return target

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        """Cosines to the classes of a chunk, (B, C) -> (B, C). What becomes of a sample's own class is ignored."""
        return cosine

    def regularizer(self, terms: Terms) -> Tensor:
        """Added to the loss, ()."""
        return terms.target.new_zeros(())


HEADS: Registry[MarginHead] = Registry("head", "facelab.head", supplied=("num_classes", "feat_dim"))
