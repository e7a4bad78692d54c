"""Dynamic class pool: millions of people without a class row for each."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from facelab import distributed
from facelab.citation import Citation
from facelab.data.base import Labels
from facelab.errors import ConfigError
from facelab.head.rows.class_pool import ClassPool
from facelab.training_mode.base import MODES, Supplies
from facelab.training_mode.semi_siamese.mode import SemiSiamese


@MODES.register("class_pool")
class DynamicClassPool(SemiSiamese):
    """Fast Face Classification (Wang et al., CVPR 2022, arXiv:2105.10375).

    The step is that of `SemiSiamese`: two networks and two passes, of which the second is stored. Batches mix pairs of
    one person, which bring people into the pool, and pairs of any two images, which show those that are there how
    often they come in the data: the sampler ``PairsAndInstances``. The loss is the sum of both passes.

    Args:
        supplies: The network, and the settings' owner of feature rows with its head.
        decay: Part of the gallery network that stays at an update; FFC's alpha.

    Raises:
        ConfigError: If the settings' owner of class rows stores no features, or the decay is out of range.
    """

    citation: ClassVar[Citation | None] = ClassPool.citation
    of_a_pass: ClassVar[float] = 1.0

    def __init__(self, supplies: Supplies, decay: float = 0.99) -> None:
        super().__init__(supplies, decay)

    def check_batches(
        self, parts: Iterable[NDArray[np.int64]], labels: Labels, quality: NDArray[np.float32] | None
    ) -> None:
        """Refuse batches that do not divide into pairs, hold none of one person, or are larger than the pool."""
        parts = list(parts)
        people = [labels[rows] for rows in parts]
        if any(len(some) % 2 for some in people) or not any((some[::2] == some[1::2]).any() for some in people):
            raise ConfigError(
                "class_pool needs pairs: of rows 2i and 2i + 1 of a batch many must show one person; set "
                "data.sampler: PairsAndInstances, or {ClassBalanced: {images_per_class: 2}}."
            )
        self.rows.require_room(len(parts[0]) // 2 * distributed.world_size())
