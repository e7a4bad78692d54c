"""Semi-siamese training: a network learns from features that its own moving average gives of other images."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab import distributed
from facelab.citation import Citation
from facelab.data.base import Batch, Labels
from facelab.engine.loop import StepOutput
from facelab.engine.shadow import Shadow
from facelab.errors import ConfigError, in_range
from facelab.head.classifier import Classifier
from facelab.head.rows.prototype_queue import PrototypeQueue
from facelab.training_mode.base import MODES, Supplies, TrainingMode


@MODES.register("semi_siamese")
class SemiSiamese(TrainingMode):
    """For shallow data, with few images of each person (Du et al., ECCV 2020, arXiv:2007.08398).

    A batch is pairs: rows 2i and 2i + 1 are two images of one person. The *probe* network in training embeds all, and
    so does the *gallery* network, its moving average, without gradient and with BatchNorm statistics of its own. The
    loss is the mean of two passes: first images by the probe against second ones by the gallery, and the other way
    round, each beside what the owner of rows has stored; then it stores the gallery's features of the first images.

    Where we depart from FaceX-Zoo's program: it tosses a coin for which image of a pair is stored, while here the
    order within a pair is random already; it embeds first and second images apart, so that BatchNorm never sees both,
    and permutes the gallery's between GPUs, while here one pass of each network embeds the whole batch.

    Args:
        supplies: The network, and the settings' owner of feature rows with its head.
        decay: Part of the gallery network that stays at an update; FaceX-Zoo's alpha.

    Raises:
        ConfigError: If the settings' owner of class rows stores no features, or the decay is out of range.
    """

    citation: ClassVar[Citation | None] = PrototypeQueue.citation
    of_a_pass: ClassVar[float] = 0.5

    def __init__(self, supplies: Supplies, decay: float = 0.999) -> None:
        super().__init__(supplies)
        self.rows = supplies.build_feature_rows()
        in_range("mode: decay", decay, 0.0, 1.0, high_open=True)
        self.require_whole("a gallery network")
        self.gallery = Shadow(self.network, decay=decay, buffers="own")

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its loss looks at no scores; a network that takes them gets them."""
        return False

    def host_work(self) -> str:
        """The rows that are kept."""
        return "its classifier counts there the features that it keeps"

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        first, second = _pairs(self.embed(batch))
        first_stored, second_stored = _pairs(self._gallery_features(batch))
        first_label, second_label = _pairs(batch.label)
        self.rows.offer(second_stored, second_label)
        one = self.rows(first, first_label)
        self.rows.offer(first_stored, first_label, keep=True)
        other = self.rows(second, second_label)
        shared = {name: (one.metrics[name] + value) / 2 for name, value in other.metrics.items() if name in one.metrics}
        return StepOutput(self.of_a_pass * (one.loss + other.loss), shared)

    @torch.no_grad()
    def _gallery_features(self, batch: Batch) -> Tensor:
        features: Tensor = self.gallery.network(*self.inputs(batch))
        return features

    def after_update(self) -> None:
        """Store what was to be kept, and move the gallery network."""
        super().after_update()
        self.gallery.update(self.network)

    def networks(self) -> Mapping[str, nn.Module]:
        """The network in training, the probe, and the ``gallery``."""
        return {**super().networks(), "gallery": self.gallery.network}

    def row_owners(self) -> Mapping[str, Classifier]:
        """The store of features."""
        return {"classifier": self.rows}

    def check_batches(
        self, parts: Iterable[NDArray[np.int64]], labels: Labels, quality: NDArray[np.float32] | None
    ) -> None:
        """Refuse batches that are not pairs of one person each, or larger than the store."""
        for rows in parts:
            people = labels[rows]
            if len(people) % 2 or (people[::2] != people[1::2]).any():
                raise ConfigError(
                    "semi_siamese needs pairs: rows 2i and 2i + 1 of a batch must show one person; set "
                    "data.sampler: {ClassBalanced: {images_per_class: 2}}."
                )
            self.rows.require_room(len(rows) // 2 * distributed.world_size())


def _pairs(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second of each pair, (B, ...) -> (B / 2, ...) each."""
    return rows[::2], rows[1::2]
