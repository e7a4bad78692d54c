"""The latest features of a gallery network as class rows, first in, first out."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS
from facelab.head.rows.feature_rows import MOST_SLOTS, FeatureRows, GalleryFeatures
from facelab.head.rows.stored_numbers import require_whole


@CLASSIFIERS.register("PrototypeQueue")
class PrototypeQueue(FeatureRows):
    """The prototype queue of semi-siamese training (Du et al., ECCV 2020, arXiv:2007.08398, Sec. 3.2).

    Each sample's own prototype is the feature that was offered for it, and the older ones of other people are its
    negatives. FaceX-Zoo's program also takes for negatives what is left of the same person, and keeps people that are
    in the queue out of the next epoch, so that a queue that holds everybody of a small set leaves nothing to train on;
    here older features of the same person are no negatives unless asked for, and the queue has any size from that of a
    batch on.

    Args:
        num_classes: C, the people that there are.
        feat_dim: D.
        head: A head of cosines that learns no numbers for each class.
        seed: Random directions that fill the queue at first, as in FaceX-Zoo's program.
        size: Features in the queue, over all processes, 1 to 10^9.
        exclude_same_person: Leave older features of a sample's person out of its negatives.

    Attributes:
        people: Whom each slot shows, int64, (size,); -1 while it holds a random direction.
        next: Slot of the next feature, int64, ().

    Raises:
        ConfigError: If the size is out of range, below the number of processes or beyond memory, or the head does not
            fit.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="du2020semisiamese",
        title="Semi-Siamese Training for Shallow Face Learning",
        authors="Du, Hang and Shi, Hailin and Liu, Yuchi and Wang, Jun and Lei, Zhen and Zeng, Dan and Mei, Tao",
        venue="ECCV",
        year=2020,
        arxiv="2007.08398",
    )
    size_option: ClassVar[str] = "size"
    people: Tensor
    next: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        size: int = 16384,
        exclude_same_person: bool = True,
    ) -> None:
        in_range("PrototypeQueue size", size, 1, MOST_SLOTS)
        super().__init__(num_classes, feat_dim, head, size, seed)
        self.exclude_same_person = exclude_same_person
        self.register_buffer("people", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """The owned slots, as they will be when what was offered is in them."""
        offer = self.offered
        slot = self._slots(offer)
        rows = self._rows_with(offer, slot)  # a copy: the offer may be one that is not kept
        column, owned = self.shard.columns(slot)
        if not self.exclude_same_person:
            return Candidates(rows, column, owned)
        people = self.people.index_copy(0, slot, offer.people)[self.shard.start : self.shard.stop]
        same = people == labels.unsqueeze(1)
        same &= ~torch.zeros_like(same).scatter(1, column.unsqueeze(1), owned.unsqueeze(1))
        return Candidates(rows, column, owned, excluded=same)

    def store(self, offer: GalleryFeatures) -> None:
        """The oldest make room."""
        slot = self._slots(offer)
        self.rows.copy_(self._rows_with(offer, slot))
        self.people.index_copy_(0, slot, offer.people)
        self.next.add_(len(slot)).remainder_(self.slots)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        ranges = {"people": (-1, self.num_classes - 1), "next": (0, self.slots - 1)}
        require_whole(state, prefix, ranges, "PrototypeQueue")
        super()._load_from_state_dict(state, prefix, *rest)

    def _slots(self, offer: GalleryFeatures) -> Tensor:
        """Slot of each offered feature, (G,)."""
        return (self.next + torch.arange(len(offer.people), device=self.next.device)) % self.slots

    def _rows_with(self, offer: GalleryFeatures, slot: Tensor) -> Tensor:
        """A copy of the owned rows with what was offered for them, (slots of this process, D)."""
        # What other processes own goes to a row behind: to leave it out, the host would wait for how much that is.
        place = torch.where(self.owned(slot), slot - self.shard.start, self.shard.size)
        return torch.cat([self.rows, self.rows.new_empty(1, self.rows.shape[1])]).index_copy_(0, place, offer.features)[
            :-1
        ]
