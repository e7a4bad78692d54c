"""The loss across qualities: by hand, and what it moves."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from facelab.adapter.base import AdaptedBackbone
from facelab.adapter.dual_lora import DualLoRA
from facelab.adapter.gate import SigmoidGate
from facelab.adapter.lora import LoRA
from facelab.backbone.base import BACKBONES
from facelab.data.base import Batch
from facelab.errors import ConfigError
from facelab.quality.card import ScorerCard
from facelab.training_mode.adaptation.alignment import alignment_loss, pairs_across
from facelab.training_mode.adaptation.mode import Adaptation
from facelab.training_mode.base import Supplies

LOW = torch.tensor([True, True, False, False])


def test_by_hand() -> None:
    """Person 0: low at 0 degrees, high at 60; person 1: low at 90, high at 180. Scale 2, margin 0.1."""
    angles = torch.deg2rad(torch.tensor([0.0, 90.0, 60.0, 180.0]))
    embedding = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    cosine = [[0.5, -1.0], [math.cos(math.pi / 6), 0.0]]
    expected = []
    for own, other in ((0, 1), (1, 0)):
        for negative in (cosine[own][other], cosine[other][own]):
            expected.append(math.log1p(math.exp(2 * negative - 2 * (cosine[own][own] - 0.1))))
    found = alignment_loss(embedding, torch.tensor([0, 1, 0, 1]), LOW, scale=2.0, margin=0.1)
    assert found.item() == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_other_images_of_the_person_are_no_negatives() -> None:
    """With one person there are pairs and nothing to tell them from."""
    assert alignment_loss(torch.randn(4, 8), torch.zeros(4, dtype=torch.long), LOW).item() == 0


@pytest.mark.parametrize("low", [[True] * 4, [False] * 4])
def test_a_batch_of_one_quality_costs_nothing(low: list[bool]) -> None:
    embedding = torch.randn(4, 8, requires_grad=True)
    loss = alignment_loss(embedding, torch.tensor([0, 1, 0, 1]), torch.tensor(low))
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad is not None
    assert not embedding.grad.any()


def test_pairs_by_hand() -> None:
    """Person 0 has two low images and one high one, person 1 one of each, person 2 two high ones."""
    label, low = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([1, 1, 0, 1, 0, 0, 0], bool)
    assert pairs_across(label, low) == 2 + 1


@pytest.mark.parametrize(("people", "refused"), [([0, 0, 1, 1], False), ([0, 1, 2, 3], True)])
def test_batches_with_less_than_a_pair_each_are_refused(people: list[int], refused: bool) -> None:
    gate = SigmoidGate(tau=0.5, temperature=0.1)
    gate.calibrate([0.1, 0.9], ScorerCard(name="test", low=0, high=1))
    options = {"width": 0.125, "feat_dim": 8, "input_spec": {"height": 32, "width": 32}}
    network = AdaptedBackbone(BACKBONES.build("MobileFaceNet", options), DualLoRA(rank=2), gate)
    mode = Adaptation(Supplies(network, 4, "CosFace"), gate, alignment=1.0)
    parts, quality = [np.arange(4), np.array([3, 2])], np.array([0.1, 0.9] * 2, np.float32)
    if not refused:
        mode.check_batches(parts, np.array(people), quality)
        return
    with pytest.raises(ConfigError, match="first 2 batches hold only 0 such pairs; draw several images of each person"):
        mode.check_batches(parts, np.array(people), quality)


def test_both_qualities_move() -> None:
    embedding = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alignment_loss(embedding, torch.tensor([0, 1, 0, 1]), LOW).backward()
    assert embedding.grad is not None
    assert (embedding.grad.norm(dim=1) > 0).all()


def test_the_mode_adds_it_by_its_weight() -> None:
    torch.manual_seed(0)
    options = {"width": 0.125, "feat_dim": 8, "input_spec": {"height": 32, "width": 32}}
    gate = SigmoidGate(tau=0.5, temperature=0.1)
    gate.calibrate([0.1, 0.9], ScorerCard(name="test", low=0, high=1))
    network = AdaptedBackbone(BACKBONES.build("MobileFaceNet", options), DualLoRA(rank=2, dropout=0.0), gate)
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    label, index = torch.tensor([0, 1, 1, 0]), torch.arange(4)
    batch = Batch(image, label, index, torch.where(LOW, 0.1, 0.9))
    supplies = Supplies(network, 2, "CosFace")
    without, with_it = (Adaptation(supplies, gate, alignment=w).step(batch) for w in (0.0, 2.0))
    assert "apart" not in without.metrics
    assert with_it.metrics["apart"] > 0
    assert (with_it.loss - without.loss).item() == pytest.approx(2 * float(with_it.metrics["apart"]), rel=1e-4)


def test_dropout_is_on_in_training() -> None:
    """The base was loaded in evaluation mode."""
    options = {"width": 0.125, "feat_dim": 8, "input_spec": {"height": 32, "width": 32}}
    network = AdaptedBackbone(BACKBONES.build("MobileFaceNet", options).eval(), LoRA(rank=2, dropout=0.5))
    Adaptation(Supplies(network, 2, "CosFace"))
    assert network.training
    assert all(not layer.training for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    for layer in network.low_rank_layers().values():
        nn.init.normal_(layer.low_rank_up)
    torch.manual_seed(0)
    image = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network(image), network(image))
