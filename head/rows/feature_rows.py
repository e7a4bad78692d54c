"""Rows that are features in slots: nothing is learned here; what a gallery network gives, the training mode brings."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab import distributed
from facelab.errors import ConfigError
from facelab.head.base import ClassShard, MarginHead
from facelab.head.classifier import Classifier, require_no_class_numbers
from facelab.head.rows.initial import initial_rows

MOST_SLOTS = 10**9  # so that their numbers fit into 32 bits


@dataclass(frozen=True)
class GalleryFeatures:
    """What the samples of a forward pass are compared with beside the rows.

    Attributes:
        features: Of unit length, those of all processes, (G, D).
        people: Whom each shows, int64, (G,).
    """

    features: Tensor
    people: Tensor


class SlotRows(Classifier):
    """A store of unit features in slots, which each process owns a range of; the tables of who is where all have.

    Args:
        num_classes: C, the people that there are.
        feat_dim: D.
        head: A head of cosines that learns no numbers for each class.
        slots: Places of the store, over all processes.
        seed: Random directions that fill the slots at first; they count as strangers.
        rows_per_slot: Features that a slot holds.

    Attributes:
        size_option: The name of the option that says how many slots there are.
        slots: As above.
        rows: The features of this process's slots, (S, D), or (S, K, D) if a slot holds several.

    Raises:
        ConfigError: If the head does not fit, there are fewer slots than processes, or memory does not hold them.
    """

    size_option: ClassVar[str]
    rows: Tensor

    def __init__(
        self, num_classes: int, feat_dim: int, head: MarginHead, slots: int, seed: int = 0, rows_per_slot: int = 1
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_no_class_numbers(name, head)
        if not head.normalised:
            raise ConfigError(
                f"{name} keeps directions, but {type(head).__name__} takes inner products; choose a head of cosines, "
                "such as {Softmax: {normalise: true}}."
            )
        self.num_classes, self.head, self.slots = num_classes, head, slots
        self.shard = ClassShard.of_this_process(slots, f"slots of {name}")
        numbered = ClassShard(self.shard.start * rows_per_slot, self.shard.stop * rows_per_slot)
        rows = initial_rows(numbered, feat_dim, "unit", 1.0, seed, self._memory)
        self.register_buffer("rows", rows if rows_per_slot == 1 else rows.view(-1, rows_per_slot, feat_dim))

    @property
    def row_range(self) -> tuple[int, int]:
        """Slots ``[start, stop)`` that this process owns."""
        return self.shard.start, self.shard.stop

    def row_tensors(self) -> dict[str, Tensor]:
        """``rows``."""
        return {"rows": self.rows}

    def require_room(self, offered: int) -> None:
        """Refuse batches that bring more features at once, over all processes, than there are slots.

        Raises:
            ConfigError: If so.
        """
        if offered > self.slots:
            name = type(self).__name__
            raise ConfigError(
                f"{name} has room for {self.slots} features, but a batch brings those of {offered} images at once; "
                f"raise classifier.{name}.{self.size_option}, or lower training.batch_size."
            )

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        try:
            return torch.empty(shape)
        except RuntimeError:  # torch's names neither the option nor the classifier
            name = type(self).__name__
            raise ConfigError(
                f"{name} keeps {4e-9 * math.prod(shape):,.1f} GB in {self.shard.size} slots on this process, more than "
                f"its memory holds; lower classifier.{name}.{self.size_option}, or start more processes."
            ) from None

    def owned(self, slot: Tensor) -> Tensor:
        """Which of some slots this process owns, bool, of their shape."""
        return (slot >= self.shard.start) & (slot < self.shard.stop)


class FeatureRows(SlotRows):
    """Rows that are features of a gallery network.

    Before each forward pass the mode offers features of other images, which that pass takes for stored already. Of
    those that are to be kept, `after_update` stores the features; the others leave nothing behind. The features of
    all processes travel to all, since everybody keeps the tables; rows and cosines are spread.

    Args:
        num_classes: As in `SlotRows`.
        feat_dim: As in `SlotRows`.
        head: As in `SlotRows`.
        slots: As in `SlotRows`.
        seed: As in `SlotRows`.
        rows_per_slot: As in `SlotRows`.

    Raises:
        ConfigError: As in `SlotRows`.
    """

    def __init__(
        self, num_classes: int, feat_dim: int, head: MarginHead, slots: int, seed: int = 0, rows_per_slot: int = 1
    ) -> None:
        super().__init__(num_classes, feat_dim, head, slots, seed, rows_per_slot)
        self._offer: GalleryFeatures | None = None
        self._kept: list[GalleryFeatures] = []

    def offer(self, features: Tensor, people: Tensor, keep: bool = False) -> None:
        """Say what the next forward pass compares with.

        Args:
            features: Of a gallery network for other images than those of that pass, (G, D), this process's part; G
                equal on all processes.
            people: Whom each shows, int64, (G,).
            keep: Whether they are stored at `after_update`.

        Raises:
            ConfigError: If there are more than slots.
        """
        self.require_room(len(people) * distributed.world_size())
        gathered = distributed.gather_labels(normalize(features.detach().to(self.row_dtype)))
        self._offer = GalleryFeatures(gathered, distributed.gather_labels(people))
        if keep:
            self._kept.append(self._offer)

    @property
    def offered(self) -> GalleryFeatures:
        """What this forward pass compares with.

        Raises:
            ConfigError: If nobody offered features, as in a mode without a gallery network.
        """
        if self._offer is None:
            name = type(self).__name__
            raise ConfigError(
                f"{name} compares with features of a gallery network, and got none; choose a mode that has one, "
                f"semi_siamese or class_pool, or call {name}.offer before each batch."
            )
        return self._offer

    @torch.no_grad()
    def after_update(self) -> None:
        """Store what was to be kept since the last update."""
        for offer in self._kept:
            self.store(offer)
        self._kept.clear()
        self._offer = None

    @abstractmethod
    def store(self, offer: GalleryFeatures) -> None:
        """Put features into slots."""
