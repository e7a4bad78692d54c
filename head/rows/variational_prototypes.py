"""Learned rows into which the latest feature of their class is mixed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS
from facelab.head.rows.class_features import write_rows
from facelab.head.rows.initial import Initial
from facelab.head.rows.partial_fc import PartialFC, Unsampled
from facelab.head.rows.stored_numbers import require_whole
from facelab.head.same_class import class_last

NEVER = -1


@CLASSIFIERS.register("VPL")
class VPL(PartialFC):
    """Variational prototype learning (Deng et al., CVPR 2021): samples are compared with samples by way of the rows.

    While the latest feature q of a class is not older than ``age`` updates, its row w takes part as
    ``normalize((1 - share) w / ||w|| + share q)``; the gradient goes to w alone. In evaluation mode rows are as they
    are. Features take C D numbers more, spread as the rows are, without state of an optimiser.

    Args:
        num_classes: As in `PartialFC`.
        feat_dim: As in `PartialFC`.
        head: A head of cosines.
        seed: As in `PartialFC`.
        share: Part of the feature in a row, 0 to 1, the paper's lambda.
        age: Updates for which a feature is used, from 1, the paper's delta. Features drift as the network learns.
        start: First update in which features are used; at the start of training they drift fast.
        sample_rate: As in `PartialFC`; all classes by default.
        unsampled: As in `PartialFC`.
        initial: As in `PartialFC`.
        deviation: As in `PartialFC`.
        folder: As in `PartialFC`; features lie there too. While all classes take part, memory holds the gradient of
            all rows.

    Attributes:
        features: The latest of each owned class, of unit length, (C_own, D).
        seen: In which update that was, int64, (C_own,); -1 if there is none.

    Raises:
        ConfigError: If an argument is out of range, or the head takes inner products.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="deng2021vpl",
        title="Variational Prototype Learning for Deep Face Recognition",
        authors="Deng, Jiankang and Guo, Jia and Yang, Jing and Lattas, Alexandros and Zafeiriou, Stefanos",
        venue="CVPR",
        year=2021,
    )
    features: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        share: float = 0.15,
        age: int = 200,
        start: int = 0,
        sample_rate: float | Sequence[tuple[int, float]] = 1.0,
        unsampled: Unsampled = "lazy",
        initial: Initial = "unit",
        deviation: float = 0.01,
        folder: Path | None = None,
    ) -> None:
        if not head.normalised:
            raise ConfigError(
                f"VPL mixes directions, but {type(head).__name__} takes inner products; choose a head of cosines."
            )
        super().__init__(num_classes, feat_dim, head, seed, sample_rate, unsampled, initial, deviation, folder=folder)
        self.share = in_range("VPL share", share, 0.0, 1.0)
        self.age = int(in_range("VPL age", age, 1, float("inf")))
        self.start = int(in_range("VPL start", start, 0, float("inf")))
        self.register_buffer("features", self._zeros(self.weight))
        self.register_buffer("seen", torch.full((self.shard.size,), NEVER))
        self._latest: list[tuple[Tensor, Tensor]] = []  # features and labels of the passes since the last update

    def row_tensors(self) -> dict[str, Tensor]:
        """Those of `PartialFC`, ``features`` and ``seen``."""
        return {**super().row_tensors(), "features": self.features, "seen": self.seen}

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """As in `PartialFC`, with features in the rows. Remembers those of the batch."""
        candidates = super().candidates(features, labels)
        if not self.training:
            return candidates
        self._latest.append((features, labels))
        if self._update < self.start:
            return candidates
        seen = candidates.of_taken(self.seen)
        fresh = (seen != NEVER) & (self.updates - seen <= self.age)
        share = self.share * fresh.to(self.row_dtype).unsqueeze(1)
        latest = candidates.of_taken(self.features)
        return replace(candidates, rows=torch.lerp(normalize(candidates.rows), latest, share))

    def check_rows(self) -> None:
        """Refuse features of updates that were not yet."""
        require_whole({"seen": self.seen}, "", {"seen": (NEVER, self._update - 1)}, "VPL")

    @torch.no_grad()
    def after_update(self) -> None:
        """Store the latest features, of several of a class in a batch the last."""
        for features, labels in self._latest:
            column, owned = self.shard.columns(labels)
            write_rows(self.features, column, owned, normalize(features)[class_last(labels)])
            write_rows(self.seen, column, owned, self.updates.expand(len(labels)))
        self._latest.clear()
        super().after_update()
