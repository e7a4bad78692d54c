"""All classes in every step, spread over the processes where there are several."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.base import ClassShard, MarginHead
from facelab.head.candidates import Candidates
from facelab.head.chunked_gradient import ChunkedGradient
from facelab.head.classifier import CLASSIFIERS, Classifier, UpdateRule
from facelab.head.rows.chunk_optimizer import ChunkOptimizer
from facelab.head.rows.initial import Initial, initial_numbers, initial_rows

MOST_ROWS = 1000  # of one class


@CLASSIFIERS.register("FullSoftmax")
class FullSoftmax(Classifier):
    """Rows that are parameters, of which all take part in every step.

    Each process owns the rows of some classes and computes their logits for the batch of all processes.

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
        gradient: ``whole``, or ``chunks``: that of the rows is made and used chunk by chunk when they are moved, so
            that there is never one as large as the rows, for one more product of batch and rows in each update. They
            move as with ``whole``, to the last bit on a CPU, under any precision, schedule and accumulation; but
            their gradient has no part in ``training.clip_norm`` and the norm that is logged.

    Attributes:
        weight: Rows of the owned classes, (C_own, D), or (C_own, K, D) if K is more than 1.
        class_parameters: What the head learns of each class, (C_own,) each.
        class_bias: Bias of the owned classes, (C_own,), or None if the head has none.

    Raises:
        ConfigError: If an argument is out of range, or the head does not fit ``rows_per_class``.
    """

    entry_citations: ClassVar[Mapping[str, Citation]] = {
        "SubCenter": Citation(
            key="deng2020subcenter",
            title="Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
            authors="Deng, Jiankang and Guo, Jia and Liu, Tongliang and Gong, Mingming and Zafeiriou, Stefanos",
            venue="ECCV",
            year=2020,
        )
    }
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
        gradient: Literal["whole", "chunks"] = "whole",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        in_range(f"{name} rows_per_class", rows_per_class, 1, MOST_ROWS)
        if rows_per_class > 1 and not head.normalised:
            raise ConfigError(
                f"{name} rows_per_class is {rows_per_class}, but {type(head).__name__} takes inner products, "
                "which have no nearest centre; choose a head of cosines."
            )
        in_range(f"{name} num_classes", num_classes, 2, math.inf)
        in_range(f"{name} deviation", deviation, 0.0, math.inf, low_open=True, high_open=True)
        self.num_classes = num_classes
        self.head = head
        self.gradient = gradient
        self.shard = ClassShard.of_this_process(num_classes)
        # Numbered through, so that sub-centres too start alike on any number of processes.
        centres = ClassShard(self.shard.start * rows_per_class, self.shard.stop * rows_per_class)
        rows = initial_rows(centres, feat_dim, initial, deviation, seed, self._memory)
        self.weight = nn.Parameter(rows if rows_per_class == 1 else rows.view(-1, rows_per_class, feat_dim))
        self.class_parameters = nn.ParameterDict(
            {
                name: nn.Parameter(initial_numbers(self.shard, wanted.low, wanted.high, seed, number))
                for number, (name, wanted) in enumerate(head.class_parameters.items())
            }
        )
        self.class_bias = nn.Parameter(torch.zeros(self.shard.size)) if head.bias else None

    def optimizer(self, rule: UpdateRule) -> Optimizer | None:
        """One that makes the gradient of the rows itself, if that shall be made in chunks."""
        if self.gradient == "whole":
            return None
        # Only now: whoever moves the rows on their own finds a gradient as large as they are.
        self.row_gradient = ChunkedGradient()
        return ChunkOptimizer(self.weight, rule, self.row_gradient, at_once=self.class_compile)

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        """Where the rows are kept."""
        return torch.empty(shape)

    @property
    def row_range(self) -> tuple[int, int]:
        """Classes ``[start, stop)`` that this process owns."""
        return self.shard.start, self.shard.stop

    def row_tensors(self) -> dict[str, Tensor]:
        """``weight``, ``class_bias`` if the head has one, and its class parameters."""
        parameters = {f"class_parameters.{name}": value for name, value in self.class_parameters.items()}
        rows: dict[str, Tensor] = {"weight": self.weight, **parameters}
        return rows if self.class_bias is None else {**rows, "class_bias": self.class_bias}

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """All owned classes."""
        # As in FaceX-Zoo's AdaM-Softmax: put back before the forward pass, outside of the graph.
        if self.training:
            for name, wanted in self.head.class_parameters.items():
                self.class_parameters[name].data.clamp_(wanted.smallest, wanted.largest)
        column, owned = self.shard.columns(labels)
        return Candidates(self.weight, column, owned, self.class_bias, dict(self.class_parameters.items()))
