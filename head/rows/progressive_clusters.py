"""Learned rows and running means of features, two anchors of each class in one loss, brought in stage by stage."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import CheckpointError, ConfigError, in_range
from facelab.head.base import MarginHead
from facelab.head.classifier import CLASSIFIERS, ClassifierOutput, require_no_class_numbers
from facelab.head.margin_loss import MarginLoss
from facelab.head.rows.class_features import class_means, write_rows
from facelab.head.rows.initial import Initial
from facelab.head.rows.partial_fc import PartialFC, Unsampled
from facelab.head.rows.stored_numbers import require_whole

ALIGNMENT, CENTROIDS, BOUNDARIES = 1, 2, 3


@dataclass(frozen=True)
class Seen:
    """What a forward pass shows of the classes, of the batch of all processes.

    Attributes:
        labels: Class of each sample, int64, (B,).
        features: Of unit length, (B, D).
        target: Cosine of each to the learned row of its class, (B,).
    """

    labels: Tensor
    features: Tensor
    target: Tensor


@CLASSIFIERS.register("PCO")
class PCO(PartialFC):
    """Progressive cluster optimisation of LVFace (You et al., ICCV 2025, arXiv:2501.13420), a schedule in three stages.

    1. *Alignment*: `PartialFC`.
    2. *Centroids*: each class also has the running mean e of its features, of unit length. With c the cosines to
       learned rows and c' those to means, over the classes that take part, the loss is that of two softmaxes in one
       logarithm, ``log(1 + sum_j exp(s c_j - s (c_y - m)) + sum_j exp(s c'_j - s (c'_y - m)))``. After an update,
       ``e_y <- a e_y + (1 - a) x`` with ``a = sigmoid(cos(x, e_y))``, averaged over the samples x of the class.
    3. *Boundaries*: the same loss over all classes; the means stand still.

    The next stage begins when the mean of ``c_y^2`` exceeds a threshold. Means begin at the learned rows. They take C D
    numbers more, spread as the rows are, without gradient and state of an optimiser.

    The authors' training program is not published. The paper compares the mean of a batch with the thresholds; here it
    is that of ``window`` updates, so that one easy batch does not end a stage and no GPU is waited for meanwhile.

    Args:
        num_classes: As in `PartialFC`.
        feat_dim: As in `PartialFC`.
        head: A head of cosines with a softmax and without learned numbers, the paper's is CosFace. The means have a
            copy of it, whose own averages move by the cosines to means.
        seed: As in `PartialFC`.
        sample_rate: As in `PartialFC`, in the first two stages.
        thresholds: Mean squared cosines that end the first and the second stage, 0 to 1, ascending.
        window: Updates over which it is the mean, from 1; the stage changes after every so many at most.
        unsampled: As in `PartialFC`.
        initial: As in `PartialFC`.
        deviation: As in `PartialFC`.
        folder: As in `PartialFC`; means lie there too. In the third stage memory holds the gradient of all rows.

    Attributes:
        means: Running means of the owned classes, (C_own, D).
        stage: 1 to 3, int64, ().
        squares: Sum of the squared cosines in this window, and how many they are, float64, (2,).

    Raises:
        ConfigError: If an argument is out of range, or the head does not fit.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="you2025lvface",
        title="LVFace: Progressive Cluster Optimization for Large Vision Models in Face Recognition",
        authors="You, Jinghan and Li, Shanglin and Sun, Yuanrui and Wei, Jiangchuan and Guo, Mingyu and Feng, Chao "
        "and Ran, Jiao",
        venue="ICCV",
        year=2025,
        arxiv="2501.13420",
    )
    means: Tensor
    stage: Tensor
    squares: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        sample_rate: float | Sequence[tuple[int, float]] = 0.1,
        thresholds: tuple[float, float] = (0.2, 0.35),
        window: int = 100,
        unsampled: Unsampled = "lazy",
        initial: Initial = "unit",
        deviation: float = 0.01,
        folder: Path | None = None,
    ) -> None:
        _require_plain_softmax(head)
        super().__init__(num_classes, feat_dim, head, seed, sample_rate, unsampled, initial, deviation, folder=folder)
        self.thresholds = _checked_thresholds(thresholds)
        self.window = int(in_range("PCO window", window, 1, float("inf")))
        self._stage = ALIGNMENT  # as the buffer, where it can be read without waiting for a device
        self.mean_head = copy.deepcopy(head)
        self.register_buffer("means", self._zeros(self.weight))
        self.register_buffer("stage", torch.tensor(ALIGNMENT))
        self.register_buffer("squares", torch.zeros(2, dtype=torch.float64))
        self._seen: list[Seen] = []

    @property
    def sample_rate(self) -> float:
        """Share of the classes that takes part in this update."""
        return 1.0 if self._stage == BOUNDARIES else super().sample_rate

    def row_tensors(self) -> dict[str, Tensor]:
        """``weight`` and ``means``."""
        return {**super().row_tensors(), "means": self.means}

    def loss(self, features: Tensor, labels: Tensor, weight: Tensor | None) -> ClassifierOutput:
        """Loss of the global batch in this stage; its metrics are those of the learned rows, and ``stage``.

        Args:
            features: As in `Classifier.loss`.
            labels: As there.
            weight: As there.
        """
        candidates = self.candidates(features.detach(), labels)
        loss = MarginLoss(self.head, self.num_classes, self.sample_weight)
        parts = [loss.parts(features, labels, candidates, self.product(features, candidates))]
        if self._stage != ALIGNMENT:
            means = candidates.from_bank(self.means)
            of_means = MarginLoss(self.mean_head, self.num_classes)
            parts.append(of_means.parts(features, labels, means, self.product(features, means)))
        if self.training:
            self._seen.append(Seen(labels, normalize(features.detach()), parts[0].terms.target.detach()))
        output = loss.output(loss.entropy(*parts), parts[0], candidates, weight)
        return ClassifierOutput(output.loss, {**output.metrics, "stage": self.stage.to(features.dtype)})

    @torch.no_grad()
    def after_update(self) -> None:
        """Move the means, and begin the next stage if it is time."""
        super().after_update()
        for one in self._seen:
            self.squares += torch.stack([one.target.square().sum(), torch.ones_like(one.target).sum()])
            if self._stage == CENTROIDS:
                self._move_means(one)
        self._seen.clear()
        if self._update % self.window == 0:
            self._end_window()

    def _move_means(self, seen: Seen) -> None:
        column, owned = self.shard.columns(seen.labels)
        means = self.means[column]
        stays = torch.sigmoid((seen.features * means).sum(dim=1, keepdim=True))
        moved = class_means(stays * means + (1.0 - stays) * seen.features, seen.labels)
        write_rows(self.means, column, owned, normalize(moved))

    def _end_window(self) -> None:
        if self._stage == BOUNDARIES:
            return
        # All processes have this number; the largest is taken so that not even its last digit can part them.
        mean = float(distributed.all_reduce_max(self.squares[0] / self.squares[1]))
        self.squares.zero_()
        if mean > self.thresholds[self._stage - 1]:
            if self._stage == ALIGNMENT:
                self._begin_means()
            self._stage += 1
            self.stage.fill_(self._stage)

    def _begin_means(self) -> None:
        if self._row_sgd is not None:
            self._row_sgd.catch_up()
        normalize(self.weight.detach(), out=self.means)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        require_whole(state, prefix, {"stage": (ALIGNMENT, BOUNDARIES)}, "PCO")
        squares = state.get(f"{prefix}squares")
        if squares is not None and not bool((squares.isfinite() & (squares >= 0)).all()):
            raise CheckpointError(
                f"the checkpoint is damaged: '{prefix}squares' of PCO must be sums of squares, and are not; go on from "
                "an earlier checkpoint by --resume."
            )
        super()._load_from_state_dict(state, prefix, *rest)
        self._stage = int(self.stage)


def _require_plain_softmax(head: MarginHead) -> None:
    require_no_class_numbers("PCO", head)
    if not head.normalised or head.objective != "softmax":
        raise ConfigError(
            f"PCO adds two softmaxes of cosines, and {type(head).__name__} is none; choose a head such as CosFace."
        )


def _checked_thresholds(given: Sequence[float]) -> tuple[float, float]:
    if len(given) != 2 or given[0] > given[1]:
        raise ConfigError(
            f"PCO thresholds are {list(given)}, but they must be two ascending numbers, the ends of the first and the "
            "second stage, such as [0.2, 0.35]."
        )
    first, second = (in_range("PCO thresholds", one, 0.0, 1.0) for one in given)
    return first, second
