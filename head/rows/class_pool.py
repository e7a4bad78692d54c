"""A pool of class rows for a part of all people, those seen last: memory does not grow with the number of people."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import in_range
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS, ClassifierOutput
from facelab.head.margin_loss import MarginLoss
from facelab.head.rows.feature_rows import FeatureRows, GalleryFeatures
from facelab.head.rows.slot_table import Placement, SlotTable

NEAREST_SHARE, FEWEST_NEAREST, MOST_NEAREST = 0.0002, 3, 10


@CLASSIFIERS.register("ClassPool")
class ClassPool(FeatureRows):
    """The dynamic class pool of Fast Face Classification (Wang et al., CVPR 2022, arXiv:2105.10375).

    A slot holds two features of a person, its templates. Of a forward pass, the loss is the sum over two templates of
    the pool: the first of all slots, and the second of those whose person the offer shows again, the first of others.
    Each is the head's loss, a mean over the samples whose person is in the pool, and a cosine loss for the others: the
    mean of ``max(cos, 0)`` over them and their ``h`` nearest slots, ``h`` being 0.0002 of the slots within 3 to 10.
    The head sees each pass twice, so its moving averages, where it has some, move twice.

    The rows are spread over the processes; who has which slot, a number for each person and three for each slot, is on
    all of them. How many samples are in the pool, the program has to know: a GPU is waited for twice a pass.

    Args:
        num_classes: C, the people that there are.
        feat_dim: D.
        head: A head of cosines that learns no numbers for each class.
        seed: Random directions that fill the pool at first, as in FFC's program.
        fraction: Slots of the pool as a part of the people, above 0 and up to 1. FFC's authors take 0.1 to 0.00001.

    Raises:
        ConfigError: If the fraction is out of range, gives fewer slots than processes, or the head does not fit.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2022ffc",
        title="An Efficient Training Approach for Very Large Scale Face Recognition",
        authors="Wang, Kai and Wang, Shuo and Zhang, Panpan and Zhou, Zhipeng and Zhu, Zheng and Wang, Xiaobo and "
        "Peng, Xiaojiang and Sun, Baigui and Li, Hao and You, Yang",
        venue="CVPR",
        year=2022,
        arxiv="2105.10375",
    )

    size_option: ClassVar[str] = "fraction"

    def __init__(self, num_classes: int, feat_dim: int, head: MarginHead, seed: int = 0, fraction: float = 0.1) -> None:
        in_range("ClassPool fraction", fraction, 0.0, 1.0, low_open=True)
        slots = max(1, round(fraction * num_classes))
        super().__init__(num_classes, feat_dim, head, slots, seed, rows_per_slot=2)
        self.table = SlotTable(num_classes, slots)
        wanted = min(max(int(NEAREST_SHARE * slots), FEWEST_NEAREST), MOST_NEAREST)
        self.nearest = min(wanted, slots)

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """The first template of the owned slots; who is not in the pool has no target on any process."""
        offer = self.offered
        placement = self.table.place(offer.people)
        first, _ = self._templates(offer, placement)
        return self._targets(first, self.table.find(labels, placement))

    def loss(self, features: Tensor, labels: Tensor, weight: Tensor | None) -> ClassifierOutput:
        """Loss of the global batch, see the class; metrics are those of the head's losses, and ``in_pool``.

        Args:
            features: As in `Classifier.loss`.
            labels: As there.
            weight: As there.

        Raises:
            ConfigError: If nobody offered features.
        """
        offer = self.offered
        placement = self.table.place(offer.people)
        slot = self.table.find(labels, placement)
        templates = self._templates(offer, placement)
        outputs = [self._against(features, labels, slot, rows, weight) for rows in templates]
        in_pool = (slot >= 0).to(features.dtype).mean()
        metrics = {name: (value + outputs[1].metrics[name]) / 2 for name, value in outputs[0].metrics.items()}
        return ClassifierOutput(outputs[0].loss + outputs[1].loss, {**metrics, "in_pool": in_pool})

    def store(self, offer: GalleryFeatures) -> None:
        """Those not seen for longest make room."""
        placement = self.table.place(offer.people)
        self._write(self.rows, offer, placement)
        self.table.commit(placement)

    def _templates(self, offer: GalleryFeatures, placement: Placement) -> tuple[Tensor, Tensor]:
        """Two templates of the owned slots as they will be when what was offered is in them, (S, D) each."""
        # Not in place: the offer may be one that is not kept.
        rows = self.rows.clone()
        self._write(rows, offer, placement)
        again = placement.slot[placement.again]
        own = again[self.owned(again)] - self.shard.start
        first = rows[:, 0]
        return first, first.index_copy(0, own, rows[own, 1])

    def _write(self, rows: Tensor, offer: GalleryFeatures, placement: Placement) -> None:
        here = self.owned(placement.to_slot)
        place = placement.to_slot[here] - self.shard.start
        rows[place, placement.to_row[here]] = offer.features[placement.image[here]]

    def _targets(self, rows: Tensor, slot: Tensor) -> Candidates:
        column, owned = self.shard.columns(slot)
        return Candidates(rows, column, owned)

    def _against(
        self, features: Tensor, labels: Tensor, slot: Tensor, rows: Tensor, weight: Tensor | None
    ) -> ClassifierOutput:
        """Of the samples in the pool and of those outside, against one template."""
        inside, outside = (slot >= 0).nonzero().squeeze(1), (slot < 0).nonzero().squeeze(1)
        loss, metrics = features.sum() * 0.0, dict[str, Tensor]()
        if len(inside):
            candidates = self._targets(rows, slot[inside])
            product = self.product(features[inside], candidates)
            head_loss = MarginLoss(self.head, self.num_classes, self.sample_weight)
            own = None if weight is None else weight[inside]
            output = head_loss(features[inside], labels[inside], candidates, product, own)
            loss, metrics = output.loss, dict(output.metrics)
        if len(outside):
            near = self._nearness(features[outside], self._targets(rows, slot[outside]))
            loss = loss + (near if weight is None else near * distributed.use_commonly(weight[outside])).mean()
        return ClassifierOutput(loss, metrics)

    def _nearness(self, features: Tensor, candidates: Candidates) -> Tensor:
        """Of each sample the mean of ``max(cos, 0)`` over the nearest slots of all processes, (B,)."""
        found: list[Tensor] = []
        places: list[Tensor] = []
        seen = 0

        def visit(cosine: Tensor, part: Candidates) -> None:
            nonlocal seen
            nearest = cosine.topk(min(self.nearest, len(part.rows)))
            found.append(nearest.values)
            places.append(nearest.indices + seen)
            seen += len(part.rows)

        self.product(features, candidates).over_chunks(visit)
        own = torch.cat(found, dim=1).detach().topk(min(self.nearest, self.shard.size))
        place = torch.cat(places, dim=1).gather(1, own.indices)
        # Every process offers as many, so that those of all can be compared; its own among the nearest are its share.
        offered = pad(own.values, (0, self.nearest - own.values.shape[1]), value=-torch.inf)
        everybodys = distributed.gather_labels(offered.T).T
        chosen = torch.zeros_like(everybodys).scatter(1, everybodys.topk(self.nearest).indices, 1.0)
        mine = chosen[:, self.nearest * distributed.rank() :][:, : own.values.shape[1]]
        # The walk over the slots has no gradient, and these few cosines need one.
        cosine = (normalize(features).unsqueeze(1) * normalize(candidates.rows[place], dim=2)).sum(dim=2)
        return distributed.sum_shares((cosine.clamp_min(0.0) * mine).sum(dim=1)) / self.nearest
