"""Objectives by hand and by loops, and what holds for each of them."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.errors import CheckpointError, ConfigError
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective
from facelab.training_mode.triplet.objectives.center import Center
from facelab.training_mode.triplet.objectives.quality_queue import QualityQueue

CLASSES, DIM = 5, 6
NEEDS = "the bridge needs pytorch-metric-learning: pip install 'facelab[metric-learning]'"
LABEL = torch.tensor([0, 3, 0, 3, 1, 1, 4, 2])
MINED = {"loss": "MultiSimilarityLoss", "miner": "MultiSimilarityMiner"}
OPTIONS: dict[str, dict[str, Any]] = {"MetricLearning": MINED, "QualityQueue": {"threshold": 1.0, "size": 16}}


def build(name: str, **options: Any) -> Objective:
    if name == "MetricLearning":
        pytest.importorskip("pytorch_metric_learning", reason=NEEDS)
    return OBJECTIVES.build(name, OPTIONS.get(name, {}) | options, num_classes=CLASSES, feat_dim=DIM, seed=0)


def embeddings(seed: int = 0) -> Tensor:
    return torch.randn(len(LABEL), DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


every_objective = pytest.mark.parametrize("name", OBJECTIVES.names())


@every_objective
def test_it_documents_its_options_and_its_paper(name: str) -> None:
    cls = OBJECTIVES.get(name)
    text = inspect.getdoc(cls) or ""
    assert [option for option in OBJECTIVES.parameters(name) if f"    {option}: " not in text] == []
    assert cls.citation is not None or name == "MetricLearning"


@every_objective
def test_it_draws_images_of_one_person_together(name: str) -> None:
    objective, moved = build(name).double(), embeddings().requires_grad_()
    optimizer = torch.optim.Adam([moved, *objective.parameters()], lr=0.05)

    def spread() -> float:
        unit = F.normalize(moved.detach())
        return float(sum((1 - unit[i] @ unit[j]) for i, j in ((0, 2), (1, 3), (4, 5))))

    before = spread()
    for _ in range(40):
        loss = objective(moved, LABEL)
        assert loss.shape == ()
        optimizer.zero_grad()
        loss.backward()
        assert moved.grad is not None
        assert bool(moved.grad.isfinite().all())
        optimizer.step()
        owner = objective.row_owner()
        if owner is not None:
            owner.after_update()
    assert spread() < 0.7 * before


@every_objective
def test_equal_images_and_batches_without_pairs_have_finite_losses_and_gradients(name: str) -> None:
    objective = build(name).double()
    for moved, label in ((torch.ones(4, DIM), torch.tensor([0, 0, 1, 1])), (embeddings()[:4], torch.arange(4))):
        given = moved.double().requires_grad_()
        loss = objective(given, label)
        loss.backward()
        assert bool(loss.isfinite())
        assert given.grad is not None
        assert bool(given.grad.isfinite().all())


def test_tuplets_are_those_of_loops() -> None:
    unit = F.normalize(embeddings())
    angle = (unit @ unit.T).clamp(-1, 1).acos()
    expected = []
    for a, p in ((a, p) for a in range(8) for p in range(8) if a != p and LABEL[a] == LABEL[p]):
        others = [n for n in range(8) if LABEL[n] != LABEL[a]]
        total = sum(math.exp(8 * (math.cos(angle[a, n]) - math.cos(angle[a, p] - 0.1))) for n in others)
        expected.append(math.log1p(total))
    found = build("TupletMargin", scale=8.0)(embeddings(), LABEL)
    assert float(found) == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("select", ["random", "semihard"])
def test_random_negatives_differ_from_step_to_step_and_follow_the_seed(select: str) -> None:
    objective, again = (build("Triplet", select=select, margin=1.5) for _ in range(2))
    given = torch.randn(64, DIM, generator=torch.Generator().manual_seed(1))
    label = torch.arange(64) // 4
    losses = [float(objective(given, label)) for _ in range(3)]
    assert len(set(losses)) == 3
    assert [float(again(given, label)) for _ in range(3)] == losses
    again.load_state_dict({"drawn": torch.tensor(1)})
    assert float(again(given, label)) == losses[1]


def test_semihard_negatives_are_further_away_than_the_positive() -> None:
    angle = torch.tensor([0.0, 0.5, 0.4, 0.55, 1.5])  # anchor, positive, nearer, a little further, far
    given = torch.stack([angle.cos(), angle.sin()], dim=1)
    label = torch.tensor([0, 0, 1, 2, 3])

    def loss(select: str) -> float:
        return float(build("Triplet", select=select, both=False)(given, label))

    def distance(other: float) -> float:
        return 2 - 2 * math.cos(other)

    assert loss("semihard") == pytest.approx(distance(0.5) - distance(0.55) + 0.2, rel=1e-5)
    assert loss("hardest") == pytest.approx(distance(0.5) - distance(0.4) + 0.2, rel=1e-5)


def test_centers_move_by_the_rule_of_the_paper() -> None:
    center = OBJECTIVES.build("Center", {"rate": 0.5}, num_classes=2, feat_dim=2)
    assert isinstance(center, Center)
    given = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
    loss = center(given, torch.tensor([0, 0, 1]))
    assert float(loss) == pytest.approx(0.5), "from the origin to the sphere"
    assert not bool(center.centers.weight.any())
    center.centers.after_update()
    # alpha * sum (x - c) / (1 + n)
    torch.testing.assert_close(center.centers.weight, torch.tensor([[1 / 6, 1 / 6], [0.0, -0.25]]))
    center.centers.after_update()
    torch.testing.assert_close(center.centers.weight[1], torch.tensor([0.0, -0.25]))
    loss = center(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    assert float(loss) == pytest.approx(((5 / 6) ** 2 + (1 / 6) ** 2) / 2), "from where the center is by now"
    center.centers.after_update()
    torch.testing.assert_close(center.centers.weight[0], torch.tensor([1 / 6 + 5 / 24, 1 / 6 - 1 / 24]))


def test_the_queue_counts_for_pairs_with_a_bad_image_alone() -> None:
    """Pass by pass, with loops in place of matrices; the queue of five holds the images of the last passes."""
    queue = build("QualityQueue", size=5, scale=4.0, threshold=0.45, rate=0.5).double()
    stored: list[tuple[int, Tensor]] = []
    mean = deviation = 0.0
    counted = 0
    for number in range(4):
        given = (embeddings(number)[:4] * torch.tensor([[1.0], [2.0], [3.0], [9.0]])).requires_grad_()
        label = torch.tensor([0, 0, number + 1, number + 1])
        length = given.detach().norm(dim=1)
        now = float(length.mean()), float(length.std(correction=0))
        mean, deviation = now if number == 0 else ((mean + now[0]) / 2, (deviation + now[1]) / 2)
        quality = ((0.333 * (length - mean) / deviation).clamp(-1, 1) + 1) / 2
        unit, losses = F.normalize(given), []
        for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
            bad = bool(min(quality[one], quality[other]) < 0.45)
            counted += bad
            negative = [torch.exp(4 * unit[one] @ past) for person, past in stored if person != label[one]]
            own = torch.exp(4 * unit[one] @ unit[other])
            losses.append(bad * torch.log((own + sum(negative)) / own))
        expected = torch.stack(losses).mean() * math.log(129) / math.log(6)
        found = queue(given, label)
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(loss, given)[0] for loss in (found, expected)]
        torch.testing.assert_close(*gradients)
        stored = [*stored, *zip(label.tolist(), unit.detach(), strict=True)][-5:]
    assert 0 < counted < 16
    assert isinstance(queue, QualityQueue)
    assert sorted(queue.people.tolist()) == sorted(person for person, _ in stored)
    assert int(queue.next) == 16 % 5
    wrong = queue.state_dict() | {"people": torch.full((5,), CLASSES)}
    with pytest.raises(CheckpointError, match="'people' of QualityQueue must be whole numbers from -1 to 4"):
        queue.load_state_dict(wrong)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("Triplet", {"margin": 0}, "Triplet margin is 0.0, but must lie in"),
        ("Triplet", {"select": "hard"}, "option 'select' is 'hard'"),
        ("Contrastive", {"margin": 5}, "Contrastive margin is 5.0"),
        ("TupletMargin", {"slack": 2}, "TupletMargin slack is 2.0"),
        ("Center", {"rate": 2}, "Center rate is 2.0"),
        ("QualityQueue", {"size": 0}, "QualityQueue size is 0"),
        ("QualityQueue", {"threshold": -1}, "QualityQueue threshold is -1.0"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(name, **options)


def test_the_bridge_to_pytorch_metric_learning() -> None:
    pml = pytest.importorskip("pytorch_metric_learning.losses", reason=NEEDS)
    given = embeddings().float()
    options: dict[str, Any] = {"loss": "CircleLoss", "options": {"gamma": 80}}
    found = OBJECTIVES.build("MetricLearning", options, num_classes=CLASSES, feat_dim=DIM)
    torch.testing.assert_close(found(given, LABEL), pml.CircleLoss(gamma=80)(given, LABEL))
    learned = OBJECTIVES.build("MetricLearning", {"loss": "ProxyNCALoss"}, num_classes=CLASSES, feat_dim=DIM)
    assert [tuple(one.shape) for one in learned.parameters()] == [(CLASSES, DIM)]
    for options, sentence in (
        ({"loss": "CircelLoss"}, "losses has no 'CircelLoss'. Did you mean 'CircleLoss'"),
        ({"loss": "CircleLoss", "options": {"gama": 8}}, r"CircleLoss refuses {'gama': 8}"),
        ({"loss": "CircleLoss", "miner": "Hard"}, "miners has no 'Hard'"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            OBJECTIVES.build("MetricLearning", options, num_classes=CLASSES, feat_dim=DIM)


def test_the_bridge_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_metric_learning.losses", None)
    with pytest.raises(ConfigError, match="needs the package pytorch-metric-learning, .* pip install 'facelab.metric"):
        OBJECTIVES.build("MetricLearning", {"loss": "CircleLoss"}, num_classes=CLASSES, feat_dim=DIM)
