"""Weights of samples: values worked by hand, gradients, any head, refusals; two processes are in test_sharded."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import facelab
from facelab.catalogue import build
from facelab.errors import ConfigError, DataError
from facelab.head.base import HEADS
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.sample_weight import SAMPLE_WEIGHTS
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[1] / "tiny_run.yaml")
LOSS = torch.tensor([0.1, 3.0, 0.7, 0.0, 2.0], dtype=torch.float64)


def case(head: str, sample_weight: str | dict[str, object] | None = None) -> tuple[FullSoftmax, Tensor, Tensor]:
    """Class rows, a batch of 8 and its labels."""
    generator = torch.Generator().manual_seed(0)
    classifier = FullSoftmax(11, 6, build(HEADS, head, num_classes=11), seed=1).double().eval()
    classifier.sample_weight = None if sample_weight is None else build(SAMPLE_WEIGHTS, sample_weight)
    features = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    return classifier, features, torch.randint(11, (8,), generator=generator)


def losses_one_by_one(head: str) -> Tensor:
    """Loss of each sample alone, without the regulariser."""
    classifier, features, labels = case(head)
    outputs = [classifier(features[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    return torch.stack([one.loss - one.metrics["regularizer"] for one in outputs]).detach()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"Focal": {"gamma": 2}}, [(1 - math.exp(-x)) ** 2 for x in LOSS.tolist()]),
        ({"Focal": {"gamma": 0}}, [1, 1, 1, 1, 1]),
        ({"OHEM": {"share": 0.5}}, [0, 5 / 3, 5 / 3, 0, 5 / 3]),
        ({"OHEM": {"share": 1}}, [1, 1, 1, 1, 1]),
        ({"ATk": {"k": 2}}, [0, 2.5, 0, 0, 2.5]),
    ],
)
def test_weights_by_hand(spec: dict[str, dict[str, float]], expected: list[float]) -> None:
    weight = build(SAMPLE_WEIGHTS, spec)(LOSS)
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_has_the_gradient_of_its_formula(gamma: float) -> None:
    loss = LOSS.clone().requires_grad_()
    (build(SAMPLE_WEIGHTS, {"Focal": {"gamma": gamma}})(loss) * loss).sum().backward()
    probability = torch.exp(-LOSS)
    by_hand = (1 - probability) ** gamma
    # d/dl of (1 - exp(-l))^gamma l; where the loss is 0, so is its gradient
    by_hand[LOSS > 0] += (gamma * LOSS * (1 - probability) ** (gamma - 1) * probability)[LOSS > 0]
    torch.testing.assert_close(loss.grad, by_hand)


@pytest.mark.parametrize("head", ["ArcFace", "SphereFace2", "UniFace"])
@pytest.mark.parametrize("name", SAMPLE_WEIGHTS.names())
def test_any_head_is_weighted(head: str, name: str) -> None:
    spec: dict[str, object] = {"ATk": {"k": 3}} if name == "ATk" else {name: {}}
    classifier, features, labels = case(head, spec)
    alone = losses_one_by_one(head)
    output = classifier(features, labels)
    expected = (build(SAMPLE_WEIGHTS, spec)(alone) * alone).mean()
    torch.testing.assert_close(output.loss - output.metrics["regularizer"], expected)


def test_a_given_weight_multiplies_each_loss_and_gets_its_gradient() -> None:
    classifier, features, labels = case("ArcFace", {"OHEM": {"share": 0.25}})
    alone = losses_one_by_one("ArcFace")
    weight = torch.linspace(0.5, 2.0, 8).requires_grad_()
    output = classifier(features, labels, weight)
    output.loss.backward()
    chosen = torch.zeros(8, dtype=torch.float64).scatter(0, alone.topk(2).indices, 1.0)
    torch.testing.assert_close(output.loss, (weight.double() * chosen * alone).sum() / 2)
    torch.testing.assert_close(weight.grad, (chosen * alone / 2).float())


def test_the_loss_for_other_loops_takes_both() -> None:
    given = {"num_classes": 4, "feat_dim": 3, "seed": 2}
    plain, hard = facelab.create_head("ArcFace", **given), facelab.create_head("ArcFace", sample_weight="OHEM", **given)
    features, labels = torch.eye(4, 3), torch.arange(4)
    assert bool(hard(features, labels) > plain(features, labels))
    torch.testing.assert_close(plain(features, labels, torch.full((4,), 2.0)), 2 * plain(features, labels))
    with pytest.raises(DataError, match=r"4 embeddings need as many weights, got \(3,\)"):
        plain(features, labels, torch.ones(3))


def test_a_run_names_it() -> None:
    classifier = assemble(load_config(TINY, ["sample_weight={Focal: {gamma: 3}}"])).mode.row_owners()["classifier"]
    assert classifier.sample_weight is not None
    assert vars(classifier.sample_weight) == {"gamma": 3.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample_weight=Focall"], "unknown sample_weight 'Focall'. Did you mean 'Focal'"),
        (["sample_weight={Focal: {gamma: -1}}"], "Focal gamma is -1"),
        (["sample_weight={OHEM: {share: 0}}"], "OHEM share is 0"),
        (["sample_weight=Focal", "classifier=null", "head=null"], "but classifier is null; set sample_weight: null"),
    ],
)
def test_refusals(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        assemble(load_config(TINY, words))


def test_more_than_the_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="ATk k is 6, but the batch has 5 samples; lower it"):
        build(SAMPLE_WEIGHTS, {"ATk": {"k": 6}})(LOSS)
