"""AdaCos, ElasticFace, X2-Softmax and the heads that weigh negatives, worked by hand, and their limits."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead, Terms
from facelab.head.margins.adacos import AdaCos
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.arcnegface import ArcNegFace
from facelab.head.margins.circleloss import CircleLoss
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.elasticface import ElasticFace
from facelab.head.margins.mv_softmax import MVSoftmax
from facelab.head.margins.npcface import NPCFace
from facelab.head.margins.x2_softmax import X2Softmax
from facelab.head.noise import normal

TARGETS = [0.8, 0.1, -0.2, 0.6]
OTHERS = [[0.75, -0.3], [0.2, 0.1], [0.5, -0.9], [0.0, 0.9]]


def others() -> Tensor:
    return torch.tensor(OTHERS, dtype=torch.float64, requires_grad=True)


def terms_of(head: MarginHead, targets: list[float] = TARGETS) -> Terms:
    """Terms of samples whose negatives are `OTHERS`."""
    head.double()
    target = torch.tensor(targets, dtype=torch.float64)
    labels = torch.zeros(len(targets), dtype=torch.int64)
    terms = head.prepare(target, torch.ones_like(target), labels)
    cosine = others().detach()[: len(targets)]
    sums = head.statistics(cosine, terms, torch.ones_like(cosine, dtype=torch.bool))
    return head.use_statistics(replace(terms, statistics=sums))


def positive(head: MarginHead) -> list[float]:
    terms = terms_of(head)
    values: list[float] = head.positive(terms.target, terms).tolist()
    return values


def test_adacos_scale() -> None:
    head = AdaCos(num_classes=3).double()
    first = math.sqrt(2) * math.log(2)
    head.adaptive_scale.fill_(5.0)
    values = terms_of(head).values
    mean = sum(math.exp(5 * cosine) for row in OTHERS for cosine in row) / 4
    # The median angle, the lower of acos(0.6) = 0.927 and acos(0.1) = 1.471, is above pi / 4.
    expected = math.log(mean) / math.cos(math.pi / 4)
    assert float(values["scale"]) == pytest.approx(expected)
    assert float(head.adaptive_scale) == pytest.approx(expected)
    assert float(AdaCos(num_classes=3).adaptive_scale) == pytest.approx(max(1.0, first))
    assert float(AdaCos(num_classes=72778).adaptive_scale) == pytest.approx(15.83, abs=0.01)


def test_adacos_uses_the_median_angle_where_it_is_small() -> None:
    head = AdaCos(num_classes=50).double()
    head.adaptive_scale.fill_(5.0)
    mean = sum(math.exp(5 * cosine) for row in OTHERS[:3] for cosine in row) / 3
    values = terms_of(head, [0.9, 0.99, 0.95]).values
    assert float(values["scale"]) == pytest.approx(math.log(mean) / 0.95)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_adacos_scale_stays_finite(cosine: float) -> None:
    head = AdaCos(num_classes=3).double()
    for _ in range(50):
        terms = head.prepare(torch.full((2,), cosine), torch.ones(2), torch.zeros(2, dtype=torch.int64))
        sums = head.statistics(torch.full((2, 2), cosine), terms, torch.ones(2, 2, dtype=torch.bool))
        head.use_statistics(replace(terms, statistics=sums))
    assert 1.0 <= float(head.adaptive_scale) <= 64.0


def test_npcface_margin_grows_with_the_hard_negatives() -> None:
    thresholds = [math.cos(math.acos(cosine) + 0.35) for cosine in TARGETS]
    hard = [[c for c in row if c > threshold] for row, threshold in zip(OTHERS, thresholds, strict=True)]
    assert [len(row) for row in hard] == [1, 2, 1, 1]
    margins = [0.4 + 0.2 * sum(row) / len(row) for row in hard]
    expected = [math.cos(math.acos(c) + m) if c > 0 else c for c, m in zip(TARGETS, margins, strict=True)]
    assert positive(NPCFace()) == pytest.approx(expected)


def test_npcface_lifts_hard_negatives() -> None:
    terms = terms_of(NPCFace())
    lifted = NPCFace().negatives(others(), terms)[0].tolist()
    assert lifted == pytest.approx([1.1 * 0.75 + 0.2, -0.3])


def test_mv_softmax_by_hand() -> None:
    assert positive(MVSoftmax()) == pytest.approx([0.45, 0.1, -0.2, 0.25])
    arc = [math.cos(math.acos(0.8) + 0.35), math.cos(math.acos(0.1) + 0.35), -0.2, math.cos(math.acos(0.6) + 0.35)]
    assert positive(MVSoftmax("arc")) == pytest.approx(arc)
    head = MVSoftmax()
    assert head.negatives(others(), terms_of(head))[0].tolist() == pytest.approx([1.12 * 0.75 + 0.12, -0.3])


def test_mv_softmax_without_weight_leaves_negatives() -> None:
    head = MVSoftmax(mv_weight=1.0)
    torch.testing.assert_close(head.negatives(others(), terms_of(head)), others())


def test_arcnegface_weighs_negatives_by_their_distance_to_the_target() -> None:
    head = ArcNegFace()
    a = math.cos(math.acos(0.8) + 0.5)
    weights = [1.2 * math.exp(-((cosine - a) ** 2) / 2) for cosine in OTHERS[0]]
    cosine = others()
    weighed = head.negatives(cosine, terms_of(head))
    expected = [t * c + t - 1 for t, c in zip(weights, OTHERS[0], strict=True)]
    assert weighed[0].tolist() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(weighed.sum(), cosine)
    assert gradient[0].tolist() == pytest.approx(weights)


def test_circleloss_weights_carry_no_gradient() -> None:
    head, cosine = CircleLoss(), others()
    logits = head.negatives(cosine, terms_of(head))
    (gradient,) = torch.autograd.grad(logits.sum(), cosine)
    assert logits[0].tolist() == pytest.approx([1.0 * 0.5, 0.0])
    assert gradient[0].tolist() == pytest.approx([1.0, 0.0])
    assert positive(head) == pytest.approx([(1.25 - cosine) * (cosine - 0.75) for cosine in TARGETS])


def test_x2_softmax_is_a_parabola_of_the_angle() -> None:
    expected = [-0.9 * (math.acos(cosine) + 0.1) ** 2 + 0.65 for cosine in TARGETS]
    assert positive(X2Softmax(h=-0.1)) == pytest.approx(expected)


def test_x2_softmax_is_monotone() -> None:
    target = torch.linspace(-0.9999, 0.9999, 2001, dtype=torch.float64)
    head = X2Softmax(h=-0.1)
    curve = head.positive(target, Terms(target.long(), target, target))
    assert bool((curve.diff() > 0).all())


@pytest.mark.parametrize(("variant", "fixed"), [("arc", ArcFace(0.3)), ("cos", CosFace(0.3))])
def test_elasticface_without_deviation_is_a_fixed_margin(variant: str, fixed: MarginHead) -> None:
    assert positive(ElasticFace(variant, 0.3, 0.0)) == pytest.approx(positive(fixed))  # type: ignore[arg-type]
    assert positive(ElasticFace(variant, 0.3, 0.1).eval()) == pytest.approx(positive(fixed))  # type: ignore[arg-type]


def test_elasticface_draws_new_margins_in_each_step_that_follow_from_seed_and_step() -> None:
    head, again, other = ElasticFace(), ElasticFace(), ElasticFace(seed=1)
    first, second = (terms_of(head).values["margin"] for _ in range(2))
    assert not first.equal(second)
    assert first.equal(terms_of(again).values["margin"])
    assert not first.equal(terms_of(other).values["margin"])
    assert int(head.step) == 2


def test_elasticface_plus_gives_the_largest_margin_to_the_farthest_sample() -> None:
    plain, sorted_margins = (terms_of(ElasticFace(plus=plus)).values["margin"] for plus in (False, True))
    assert sorted_margins.sort().values.equal(plain.sort().values)
    assert sorted_margins.argsort(descending=True).tolist() == [2, 1, 3, 0]


def test_elasticface_plus_as_published_indexes_by_the_permutation_itself() -> None:
    target = torch.tensor([0.1, 0.9, 0.5], dtype=torch.float64)  # by falling cosine: samples 1, 2, 0
    heads = [ElasticFace(plus=plus) for plus in (False, True, "published")]  # type: ignore[arg-type]
    drawn, ours, published = (head.prepare(target, target, target.long()).values["margin"] for head in heads)
    low, middle, high = drawn.sort().values.tolist()
    assert ours.tolist() == [high, low, middle]
    assert published.tolist() == [middle, high, low]


def test_elasticface_follows_the_cosine_past_pi_where_asked() -> None:
    target = torch.tensor([-0.99], dtype=torch.float64)
    theta = math.acos(-0.99)
    for boundary, expected in (("linear", -0.99 - 0.5 * math.sin(0.5)), ("none", math.cos(theta + 0.5))):
        head = ElasticFace(deviation=0.0, boundary=boundary)  # type: ignore[arg-type]
        terms = head.prepare(target, target, target.long())
        assert float(head.positive(target, terms)) == pytest.approx(expected)


def test_noise_is_that_of_splitmix64() -> None:
    def mixed(bits: int) -> int:  # Steele et al. 2014; the first number of seed 0 is published
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    golden_gamma = 0x9E3779B97F4A7C15
    assert mixed(golden_gamma) == 0xE220A8397B1DCDAF
    for seed, step in ((0, 0), (3, 17), (2**31 - 1, 2**20)):
        key = mixed((step + (seed << 32)) % 2**64)
        uniform = [(mixed((key + i * golden_gamma) % 2**64) // 2**11 + 0.5) / 2**53 for i in (1, 2, 3)]
        expected = torch.special.ndtri(torch.tensor(uniform, dtype=torch.float64))
        torch.testing.assert_close(normal(seed, torch.tensor(step), 3), expected, rtol=0, atol=0)


def test_noise_is_standard_normal_and_independent_between_steps() -> None:
    first, second = (normal(3, torch.tensor(step), 40000) for step in (0, 1))
    assert float(first.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(first.std()) == pytest.approx(1.0, abs=0.02)
    assert float((first.abs() < 1.0).double().mean()) == pytest.approx(0.6827, abs=0.01)
    assert abs(float((first * second).mean())) < 0.02
    assert abs(float((first[1:] * first[:-1]).mean())) < 0.02
    assert bool(first.isfinite().all())
