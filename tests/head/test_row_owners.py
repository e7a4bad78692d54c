"""The contract of classifiers carries sampled rows and a queue of features, in a few lines each."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, normalize
from torch.optim import Optimizer

from facelab import distributed
from facelab.catalogue import build, entries
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import Classifier, ClassifierOutput, UpdateRule, require_no_class_numbers
from facelab.head.margin_loss import MarginLoss
from facelab.head.margins.cosface import CosFace
from facelab.head.rows.full_softmax import FullSoftmax

CLASSES, DIM, BATCH = 11, 6, 8
ENTRIES = sorted({*entries(HEADS), *HEADS.names()})
WITH_STATISTICS = [name for name in HEADS.names() if HEADS.get(name).statistics is not MarginHead.statistics]


class SparseSGD(Optimizer):
    """Plain descent of the rows that have a gradient; ``steps`` counts how often each row moved."""

    _step_supports_amp_scaling = True
    grad_scale: Tensor | None
    found_inf: Tensor

    def __init__(self, weight: nn.Parameter, lr: float) -> None:
        super().__init__([weight], {"lr": lr})
        self.state[weight]["steps"] = torch.zeros(len(weight))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                rows, values = weight.grad.indices()[0], weight.grad.values()
                moves = 1.0 - self.found_inf
                weight.index_add_(0, rows, values.nan_to_num(), alpha=-group["lr"] * float(moves))
                self.state[weight]["steps"].index_add_(0, rows, moves.expand(len(rows)))


class Sampled(FullSoftmax):
    """The classes of the batch and some others take part; only their rows get a gradient.

    Args:
        num_classes: As in `FullSoftmax`.
        feat_dim: As in `FullSoftmax`.
        head: As in `FullSoftmax`.
        seed: As in `FullSoftmax`.
        sample_rate: Share of this process's classes that takes part, but never fewer than those of the batch.
        own_optimizer: Whether `SparseSGD` moves the rows.
    """

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        sample_rate: float = 0.5,
        own_optimizer: bool = True,
    ) -> None:
        super().__init__(num_classes, feat_dim, head, seed)
        self.count = max(1, round(sample_rate * self.shard.size))
        self.own_optimizer = own_optimizer

    def optimizer(self, rule: UpdateRule) -> Optimizer | None:
        return SparseSGD(self.weight, rule.lr) if self.own_optimizer else None

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        full = super().candidates(features, labels)
        priority = torch.rand(self.shard.size, dtype=torch.float64)
        positive = torch.zeros(self.shard.size, dtype=torch.bool)
        positive[full.column[full.owned]] = True
        positives = int(positive.sum())
        taken = priority.masked_fill(positive, 2.0).topk(max(self.count, positives)).indices.sort().values
        others = (self.shard.size - positives) / max(1, len(taken) - positives)
        weight = torch.where(positive[taken], 1.0, others).to(self.weight.dtype)
        return full.take(taken, embedding(taken, self.weight, sparse=self.own_optimizer), weight)


class Queue(Classifier):
    """The latest features of another network as rows: a ring that the mode fills, and no gradient.

    Args:
        num_classes: C, the people that there are.
        feat_dim: D.
        head: A head of cosines without numbers of each class.
        size: Features that each process keeps.
    """

    rows: Tensor
    people: Tensor
    next: Tensor

    def __init__(self, num_classes: int, feat_dim: int, head: MarginHead, size: int) -> None:
        super().__init__()
        require_no_class_numbers("Queue", head)
        self.num_classes, self.head, self.size = num_classes, head, size
        self.register_buffer("rows", torch.zeros(size, feat_dim))
        self.register_buffer("people", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))
        self.offered: Tensor | None = None

    @property
    def row_range(self) -> tuple[int, int]:
        return self.size * distributed.rank(), self.size * (distributed.rank() + 1)

    def row_tensors(self) -> dict[str, Tensor]:
        return {"rows": self.rows, "people": self.people}

    def offer(self, features: Tensor) -> None:
        """What this process's samples are compared with in the next step: features of other images of them, (B, D)."""
        self.offered = features.detach()

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        assert self.offered is not None
        count = len(self.offered)
        place = (self.next + torch.arange(count)) % self.size
        first = count * distributed.rank()
        self.rows = self.rows.index_copy(0, place, self.offered)  # not in place: the last step's graph may need it
        self.people = self.people.index_copy(0, place, labels[first : first + count])
        number = torch.arange(len(labels)) - first
        owned = (number >= 0) & (number < count)
        column = place[number.clamp(0, count - 1)]
        older = self.people == labels.unsqueeze(1)
        older &= ~torch.zeros_like(older).scatter(1, column.unsqueeze(1), owned.unsqueeze(1))
        return Candidates(self.rows, column, owned, excluded=older | (self.people < 0))

    def after_update(self) -> None:
        assert self.offered is not None
        self.next = (self.next + len(self.offered)) % self.size
        self.offered = None


def head_of(name: str) -> MarginHead:
    return build(HEADS, name, num_classes=CLASSES)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = 20 * normalize(torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64))
    return features, torch.randint(CLASSES, (BATCH,), generator=generator)


def step(classifier: Classifier, features: Tensor, labels: Tensor) -> tuple[ClassifierOutput, Tensor]:
    """Output and gradient of the features of a step; the rows keep theirs."""
    features = features.clone().requires_grad_()
    output = classifier(features, labels)
    output.loss.backward()
    assert features.grad is not None
    return output, features.grad


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.to_dense()


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("own_optimizer", [False, True])
def test_all_classes_sampled_are_the_full_softmax_to_the_last_bit(name: str, own_optimizer: bool) -> None:
    full = FullSoftmax(CLASSES, DIM, head_of(name), seed=2).double()
    sampled = Sampled(CLASSES, DIM, head_of(name), seed=2, sample_rate=1.0, own_optimizer=own_optimizer).double()
    for number in range(2):
        expected, expected_gradient = step(full, *batch(number))
        output, features_gradient = step(sampled, *batch(number))
        assert output.loss.equal(expected.loss)
        assert all(output.metrics[key].equal(value) for key, value in expected.metrics.items())
        assert features_gradient.equal(expected_gradient)
    assert gradient(sampled.weight).equal(gradient(full.weight))
    assert all(value.equal(full.head.state_dict()[key]) for key, value in sampled.head.state_dict().items())


def test_only_rows_that_take_part_get_a_gradient() -> None:
    torch.manual_seed(0)
    sampled = Sampled(100, DIM, CosFace(), sample_rate=0.2).double()
    features, labels = batch()
    step(sampled, features, labels)
    assert sampled.weight.grad is not None
    assert sampled.weight.grad.is_sparse
    touched = sampled.weight.grad.coalesce().indices()[0]
    assert len(touched) == 20
    assert set(labels.tolist()) <= set(touched.tolist())


class Recording(MarginHead):
    """Keeps its statistics."""

    seen: Mapping[str, Tensor]

    def statistics(self, cosine: Tensor, terms: Any, negative: Tensor) -> Mapping[str, Tensor]:
        return {"sum": (cosine.exp() * negative).sum(dim=1), "count": (1.0 * negative).sum(dim=1)}

    def use_statistics(self, terms: Any) -> Any:
        self.seen = terms.statistics
        return terms


def statistics_of(name: str, classifier: Classifier, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What the head's own `statistics` give over the candidates of one step."""
    candidates = classifier.candidates(features, labels)
    product = classifier.product(features, candidates)
    head = head_of(name).double()
    terms = head.prepare(product.target(), features.norm(dim=1), labels)
    sums: dict[str, Tensor] = {}
    product.over_chunks(lambda cosine, part: sums.update(head.statistics(cosine, terms, part.negatives())))
    return sums


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_statistics_of_sampled_classes_are_unbiased(name: str) -> None:
    """The mean over all draws is the sum over all classes; here over many, within five standard errors."""
    torch.manual_seed(0)
    head = head_of(name)
    features, labels = batch()
    features = features[:4].detach()
    labels = labels[:4]
    full = FullSoftmax(CLASSES, DIM, head).double()
    sampled = Sampled(CLASSES, DIM, head, sample_rate=0.6, own_optimizer=False).double()
    with torch.no_grad():
        expected = statistics_of(name, full, features, labels)
        draws = [statistics_of(name, sampled, features, labels) for _ in range(2000)]
    for key, value in expected.items():
        drawn = torch.stack([draw[key] for draw in draws]).double()
        error = 5 * drawn.std(dim=0) / len(draws) ** 0.5
        assert bool((drawn.std(dim=0) > 0).any())
        assert bool(((drawn.mean(dim=0) - value).abs() <= error + 1e-9).all())


def test_every_draw_counts_all_negatives() -> None:
    head = Recording(scale=8.0)
    Sampled(CLASSES, DIM, head, sample_rate=0.6).double()(*batch())
    torch.testing.assert_close(head.seen["count"], torch.full((BATCH,), CLASSES - 1.0, dtype=torch.float64))


def test_means_of_class_parameters_are_estimated_over_all_classes() -> None:
    torch.manual_seed(0)
    head = head_of("AdaM-Softmax")
    sampled = Sampled(CLASSES, DIM, head, sample_rate=0.6, own_optimizer=False).double()
    features, labels = batch()
    means = []
    for _ in range(1000):
        candidates = sampled.candidates(features, labels)
        terms = head.prepare(sampled.product(features, candidates).target(), features.norm(dim=1), labels)
        means.append(MarginLoss(head, CLASSES)._with_class_parameters(terms, candidates).means["margin"].detach())
    drawn = torch.stack(means)
    expected = sampled.class_parameters["margin"].detach().mean()
    assert abs(float(drawn.mean() - expected)) < 5 * float(drawn.std()) / len(means) ** 0.5


def test_a_queue_compares_with_the_latest_features() -> None:
    queue = Queue(CLASSES, DIM, CosFace(margin=0.2, scale=8.0), size=2 * BATCH).double()
    rows, people = [], []
    for number in range(2):
        (features, labels), (offered, _) = batch(number), batch(10 + number)
        queue.offer(offered)
        output, features_gradient = step(queue, features, labels)
        assert bool(features_gradient.any())
        rows.append(offered)
        people.append(labels)
        queue.after_update()
    cosine = normalize(features) @ normalize(torch.cat(rows)).T
    target = BATCH + torch.arange(BATCH)
    logits = 8.0 * (cosine - 0.2 * torch.eye(2 * BATCH, dtype=torch.float64)[target])
    same_person = torch.cat(people) == labels[:, None]
    same_person[torch.arange(BATCH), target] = False
    torch.testing.assert_close(output.loss, cross_entropy(logits.masked_fill(same_person, -torch.inf), target))
    assert not any(parameter.requires_grad for parameter in queue.parameters())


def test_an_empty_place_of_a_queue_is_no_negative() -> None:
    short, long = (Queue(CLASSES, DIM, CosFace(), size=size).double() for size in (BATCH, 5 * BATCH))
    losses = []
    for queue in (short, long):
        queue.offer(batch(10)[0])
        losses.append(queue(*batch()).loss)
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(("name", "learned"), [("Softmax", "Softmax learns a bias"), ("AdaM-Softmax", "a margin for")])
def test_heads_that_learn_numbers_of_classes_are_refused_where_classes_come_and_go(name: str, learned: str) -> None:
    with pytest.raises(ConfigError, match=f"Queue keeps no learned numbers, but .*{learned}"):
        Queue(CLASSES, DIM, head_of(name), size=4)


def test_a_queue_goes_round_through_a_state_dict() -> None:
    queue, other = (Queue(CLASSES, DIM, CosFace(), size=2 * BATCH).double() for _ in range(2))
    for number in range(3):
        queue.offer(batch(10 + number)[0])
        queue(*batch(number))
        queue.after_update()
    other.load_state_dict(copy.deepcopy(queue.state_dict()))
    for both in (queue, other):
        both.offer(batch(20)[0])
    assert queue(*batch()).loss.equal(other(*batch()).loss)


Share = tuple[Tensor, Tensor]


def run_owners() -> list[Share]:
    """Loss and gradient of this process's features over two steps of each owner."""
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    owners: list[Classifier] = [
        Sampled(CLASSES, DIM, head_of("NPCFace"), seed=2, sample_rate=1.0),
        Queue(CLASSES, DIM, CosFace(), size=2 * BATCH // distributed.world_size()),
    ]
    results = []
    for owner in owners:
        owner.double()
        for number in range(2):
            features, labels = batch(number)
            if isinstance(owner, Queue):
                owner.offer(batch(10 + number)[0][start:stop])
            output, own_gradient = step(owner, features[start:stop], labels[start:stop])
            owner.after_update()
            results.append((output.loss.detach(), own_gradient))
    return results


def test_two_processes_equal_one() -> None:
    one, two = run_owners(), distributed.run_processes(run_owners, 2)
    for (loss, expected), *shares in zip(one, *two, strict=True):
        for share_loss, _ in shares:
            torch.testing.assert_close(share_loss, loss, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.cat([own / 2 for _, own in shares]), expected, rtol=1e-9, atol=1e-9)
