"""Class rows that are made of the batch: means of several images of a person, remembered for a while."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS
from facelab.head.rows.class_features import class_means
from facelab.head.rows.feature_rows import MOST_SLOTS, GalleryFeatures, SlotRows
from facelab.head.rows.slot_table import Placement, SlotTable


@CLASSIFIERS.register("PrototypeMemory")
class PrototypeMemory(SlotRows):
    """Prototype Memory (Smirnov et al., IEEE Access 2022, arXiv:2105.02103): no row is learned.

    A batch holds several images of each of its people. The mean of the unit embeddings of a person in the batch is the
    person's prototype, without gradient. It takes the slot that the person has, or that of the person whose prototype
    is the oldest, and the loss of the batch goes over all slots. Who has no slot any more is no negative.

    Rows are spread over the processes; who has which slot, a number for each person and three for each slot, is on
    all of them. Who is in a batch, the program has to know: a GPU is waited for in each pass.

    Args:
        num_classes: C, the people that there are.
        feat_dim: D.
        head: A head of cosines that learns no numbers for each class.
        seed: Random directions that fill the memory at first; they count as strangers.
        size: Prototypes in the memory, over all processes, up to 10^9; at least as many as people in a batch.

    Raises:
        ConfigError: If the size is out of range, below the number of processes or beyond memory, or the head does not
            fit.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="smirnov2022prototype",
        title="Prototype Memory for Large-scale Face Representation Learning",
        authors="Smirnov, Evgeny and Garaev, Nikita and Galyuk, Vasiliy and Lukyanets, Evgeny",
        venue="IEEE Access",
        year=2022,
        arxiv="2105.02103",
    )

    size_option: ClassVar[str] = "size"

    def __init__(self, num_classes: int, feat_dim: int, head: MarginHead, seed: int = 0, size: int = 16384) -> None:
        in_range("PrototypeMemory size", size, 1, MOST_SLOTS)
        super().__init__(num_classes, feat_dim, head, size, seed)
        self.table = SlotTable(num_classes, size)
        self._made: list[GalleryFeatures] = []  # in the passes since the last update

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """The owned slots, as they will be with the prototypes of the batch.

        Raises:
            ConfigError: If the batch has more people than there are slots, or one image of each.
        """
        made = self._prototypes(features, labels)
        placement = self.table.place(made.people)
        rows = self.rows.clone()  # not in place: the last pass's graph may need them, and evaluation keeps none
        self._write(rows, made, placement)
        if self.training:
            self._made.append(made)
        return Candidates(rows, *self.shard.columns(self.table.find(labels, placement)))

    @torch.no_grad()
    def after_update(self) -> None:
        """Keep the prototypes; the oldest make room."""
        for made in self._made:
            placement = self.table.place(made.people)
            self._write(self.rows, made, placement)
            self.table.commit(placement)
        self._made.clear()

    def _prototypes(self, features: Tensor, labels: Tensor) -> GalleryFeatures:
        """One of each person of the batch, the people ascending."""
        people, member = torch.unique(labels, return_inverse=True)
        self.require_room(len(people))
        if len(people) == len(labels):
            raise ConfigError(
                "PrototypeMemory makes prototypes of several images of a person, but a batch has one image of each; "
                "set data.sampler: {ClassBalanced: {images_per_class: 4}}."
            )
        means = class_means(normalize(features), labels)
        # Means of one person are equal, so it does not matter which is taken.
        return GalleryFeatures(
            normalize(means.new_zeros(len(people), means.shape[1]).index_copy(0, member, means)), people
        )

    def _write(self, rows: Tensor, made: GalleryFeatures, placement: Placement) -> None:
        here = self.owned(placement.slot)
        rows[placement.slot[here] - self.shard.start] = made.features[here]
