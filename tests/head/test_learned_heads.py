"""Heads that learn numbers of their own, binary objectives, SphereFace's annealing and sub-centres, worked by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.head.base import ClassShard, MarginHead, Terms
from facelab.head.classifier import CLASSIFIERS
from facelab.head.margins.adam_softmax import AdaMSoftmax
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.softmax import Softmax
from facelab.head.margins.sphereface import SphereFace
from facelab.head.margins.sphereface2 import SphereFace2
from facelab.head.margins.uniface import UniFace
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.rows.initial import BLOCK, initial_numbers

CLASSES, DIM = 5, 4
LABELS = torch.tensor([0, 3, 3, 1])
FEATURES = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classifier(head: MarginHead, rows_per_class: int = 1) -> FullSoftmax:
    return FullSoftmax(CLASSES, DIM, head, seed=1, rows_per_class=rows_per_class).double()


def cosines(model: FullSoftmax) -> Tensor:
    return normalize(FEATURES) @ normalize(model.weight.detach(), dim=-1).flatten(0, -2).T


def loss_by_hand(own: float, others: list[float], positive: float, negative: float) -> float:
    return positive * math.log1p(math.exp(-own)) + negative * sum(math.log1p(math.exp(z)) for z in others)


def test_uniface_loss() -> None:
    head = UniFace(CLASSES, margin=0.2, scale=8.0, negative_weight=0.3)
    model, total = classifier(head), 0.0
    b = float(head.threshold.detach())
    assert b == pytest.approx(math.log(50))
    for row, label in zip(cosines(model).tolist(), LABELS.tolist(), strict=True):
        others = [8 * cosine - b for j, cosine in enumerate(row) if j != label]
        total += loss_by_hand(8 * (row[label] - 0.2) - b, others, 1.0, 0.3)
    assert float(model(FEATURES, LABELS).loss.detach()) == pytest.approx(total / 4)


@pytest.mark.parametrize("variant", ["C", "A"])
def test_sphereface2_loss(variant: str) -> None:
    head = SphereFace2(CLASSES, variant, margin=0.3, scale=10.0)  # type: ignore[arg-type]
    model, total = classifier(head), 0.0
    b = float(head.bias_of_all.detach())

    def g(cosine: float) -> float:
        return 2 * ((cosine + 1) / 2) ** 3 - 1

    for row, label in zip(cosines(model).tolist(), LABELS.tolist(), strict=True):
        shifted = g(row[label]) - 0.3 if variant == "C" else g(math.cos(min(math.pi, math.acos(row[label]) + 0.3)))
        rest = 0.3 if variant == "C" else 0.0
        others = [10 * (g(cosine) + rest) + b for j, cosine in enumerate(row) if j != label]
        total += loss_by_hand(10 * shifted + b, others, 50 / 10 * 0.7, 50 / 10 * 0.3)
    assert float(model(FEATURES, LABELS).loss.detach()) == pytest.approx(total / 4)


@pytest.mark.parametrize("variant", ["C", "A", "M"])
def test_sphereface2_starts_where_both_sides_pull_equally(variant: str) -> None:
    head = SphereFace2(1000, variant, margin=1.4 if variant == "M" else 0.4).double()  # type: ignore[arg-type]
    right = torch.zeros(1, dtype=torch.float64)
    terms = head.prepare(right, right, right.long())
    own, other = (head.scale * value.detach() for value in (head.positive(right, terms), head.negatives(right, terms)))
    assert float(0.7 * (-own).sigmoid()) == pytest.approx(float(0.3 * 999 * other.sigmoid()), rel=1e-5)


@pytest.mark.parametrize("variant", ["C", "A", "M"])
@pytest.mark.parametrize("balance", [0.01, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("scale", [1.0, 40.0, 64.0, 4000.0])
def test_sphereface2_finds_where_to_start_with_two_people_and_any_scale(
    variant: str, balance: float, scale: float
) -> None:
    margin = 1.4 if variant == "M" else 0.5
    head = SphereFace2(2, variant, margin, scale, balance).double()  # type: ignore[arg-type]
    b = float(head.bias_of_all.detach())
    right = torch.zeros(1, dtype=torch.float64)
    terms = head.prepare(right, right, right.long())
    own, other = (scale * float(z.detach()) for z in (head.positive(right, terms), head.negatives(right, terms)))

    def log_sigmoid(z: float) -> float:
        return -math.log1p(math.exp(-z)) if z > 0 else z - math.log1p(math.exp(z))

    # Logarithms of both pulls; where the curve is steep, b is only as good as fp32.
    pulls = math.log(balance) + log_sigmoid(-own), math.log(1 - balance) + log_sigmoid(other)
    assert pulls[0] == pytest.approx(pulls[1], abs=1e-6 + 2e-7 * abs(b))


@pytest.mark.parametrize("variant", ["C", "A"])
def test_sphereface2_gradient_is_exact_where_asked_and_else_that_of_the_cosine(variant: str) -> None:
    target = torch.tensor([-0.7, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    for gradient in ("exact", "straight_through"):
        head = SphereFace2(CLASSES, variant, gradient=gradient).double()  # type: ignore[arg-type]
        terms = head.prepare(target, target.detach(), target.long())
        if gradient == "exact":
            assert torch.autograd.gradcheck(lambda t, h=head, k=terms: h.positive(t, k) + h.negatives(t, k), target)
        else:
            (given,) = torch.autograd.grad(head.positive(target, terms).sum(), target)
            assert given.tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("head", [UniFace(CLASSES), SphereFace2(CLASSES)])
def test_the_threshold_of_a_binary_objective_has_the_exact_gradient(head: MarginHead) -> None:
    model = classifier(head)
    ((name, threshold),) = head.named_parameters()

    def loss(value: Tensor) -> Tensor:
        output = torch.func.functional_call(model, {f"head.{name}": value}, (FEATURES, LABELS))
        given: Tensor = output.loss
        return given

    assert torch.autograd.gradcheck(loss, threshold)


def test_adam_margins_are_those_of_the_classes() -> None:
    model = classifier(AdaMSoftmax(scale=8.0, regularization=3.0)).eval()
    margins = model.class_parameters["margin"]
    logits = 8 * cosines(model)
    logits[torch.arange(4), LABELS] -= 8 * margins.detach()[LABELS]
    expected = torch.nn.functional.cross_entropy(logits, LABELS) + 3 * (1 - margins.detach().mean())
    torch.testing.assert_close(model(FEATURES, LABELS).loss, expected)
    assert set(model.row_tensors()) == {"weight", "class_parameters.margin"}


def test_adam_margins_have_the_exact_gradient_and_stay_in_their_range() -> None:
    model = classifier(AdaMSoftmax()).eval()

    def loss(margin: Tensor) -> Tensor:
        output = torch.func.functional_call(model, {"class_parameters.margin": margin}, (FEATURES, LABELS))
        given: Tensor = output.loss
        return given

    assert torch.autograd.gradcheck(loss, model.class_parameters["margin"])
    model.class_parameters["margin"].data.copy_(torch.tensor([-1.0, 0.2, 0.5, 1.5, 1.0]))
    model.train()(FEATURES, LABELS)
    assert model.class_parameters["margin"].tolist() == pytest.approx([0.0, 0.2, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("cut", [1, BLOCK, BLOCK + 7])
def test_first_margins_do_not_depend_on_the_shards(cut: int) -> None:
    total = BLOCK + 10
    whole = initial_numbers(ClassShard(0, total), 0.3, 0.4, 4, 0)
    parts = [initial_numbers(ClassShard(*ends), 0.3, 0.4, 4, 0) for ends in ((0, cut), (cut, total))]
    assert torch.cat(parts).equal(whole)
    assert float(whole.min()) >= 0.3
    assert float(whole.max()) <= 0.4
    assert float(whole.mean()) == pytest.approx(0.35, abs=0.005)
    assert not whole[:10].equal(whole[BLOCK:])
    for seed, number in ((5, 0), (4, 1)):
        assert not whole.equal(initial_numbers(ClassShard(0, total), 0.3, 0.4, seed, number))


def test_sphereface_anneals_from_the_cosine_to_the_margin() -> None:
    head = SphereFace(margin=4.0, largest_lambda=10.0, smallest_lambda=2.0, gamma=1.0).double()
    theta = 2.5  # 4 theta = 10 lies between 3 pi and 4 pi
    target, norms = (torch.tensor([value], dtype=torch.float64) for value in (math.cos(theta), 7.0))
    for weight in (5.0, 10 / 3, 2.5, 2.0, 2.0):
        terms = head.prepare(target, norms, target.long())
        expected = 7 * (weight * math.cos(theta) - math.cos(10.0) - 6.0) / (1 + weight)
        assert float(head.positive(target, terms)) == pytest.approx(expected)
    assert head.negatives(target[:, None], terms).tolist() == [[pytest.approx(7 * math.cos(theta))]]


def test_sphereface_of_margin_one_is_the_cosine_times_the_norm() -> None:
    target = torch.linspace(-0.99, 0.99, 9, dtype=torch.float64)
    terms = Terms(target.long(), target, 3 * torch.ones_like(target), values={"lambda": torch.tensor(0.0)})
    torch.testing.assert_close(SphereFace(margin=1.0).positive(target, terms), 3 * target)


def test_sub_centres_take_the_nearest_row_of_each_class() -> None:
    model = classifier(CosFace(margin=0.2, scale=8.0), rows_per_class=3)
    assert model.weight.shape == (CLASSES, 3, DIM)
    nearest = cosines(model).view(4, CLASSES, 3).amax(dim=2)
    logits = 8 * (nearest - 0.2 * torch.nn.functional.one_hot(LABELS, CLASSES))
    torch.testing.assert_close(model(FEATURES, LABELS).loss, torch.nn.functional.cross_entropy(logits, LABELS))


def test_equal_sub_centres_are_one_centre() -> None:
    one, three = classifier(ArcFace()), classifier(ArcFace(), rows_per_class=3)
    three.weight.data.copy_(one.weight.data[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(one(FEATURES, LABELS).loss, three(FEATURES, LABELS).loss)


def test_no_sub_centre_is_refused() -> None:
    with pytest.raises(ConfigError, match="FullSoftmax rows_per_class is 0"):
        classifier(ArcFace(), rows_per_class=0)


def test_sub_centers_are_three_rows_a_class() -> None:
    named = build(CLASSIFIERS, "SubCenter", num_classes=CLASSES, feat_dim=DIM, head=ArcFace(), seed=1)
    assert named.row_tensors()["weight"].equal(FullSoftmax(CLASSES, DIM, ArcFace(), seed=1, rows_per_class=3).weight)
    with pytest.raises(ConfigError, match="rows_per_class is 3, but Softmax takes inner products"):
        build(CLASSIFIERS, "SubCenter", num_classes=CLASSES, feat_dim=DIM, head=Softmax())
    five = build(CLASSIFIERS, {"SubCenter": {"rows_per_class": 5}}, num_classes=CLASSES, feat_dim=DIM, head=ArcFace())
    assert five.row_tensors()["weight"].shape == (CLASSES, 5, DIM)
