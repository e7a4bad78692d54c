"""What holds for every adapter on every registered backbone: start, training, merging."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import SigmoidGate
from facelab.backbone.base import BACKBONES, Backbone
from facelab.quality.card import ScorerCard

SMALL: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "backbone" / "small.yaml").read_text(encoding="utf-8")
)
RANK, SIDE, STEP = 2, 64, 0.1
CASES = [(adapter, family) for adapter in ADAPTERS.names() for family in BACKBONES.names()]
each = pytest.mark.parametrize(("adapter", "family"), CASES)
GATE = torch.tensor([0.2, 0.2])
QUALITY = 0.5 + 0.1 * torch.logit(GATE)


def base(family: str) -> Backbone:
    return deepcopy(_base(family))


@cache
def _base(family: str) -> Backbone:
    torch.manual_seed(0)
    options = {"feat_dim": 16, "input_spec": {"height": SIDE, "width": SIDE}, **SMALL.get(family, {})}
    network = BACKBONES.build(family, options).train()
    with torch.no_grad():  # statistics of what it sees, so that values keep their size through all layers
        for _ in range(10):
            network(torch.rand(4, 3, SIDE, SIDE) * 2 - 1)
    return network.eval()


def adapted(adapter: str, family: str) -> AdaptedBackbone:
    """Every linear layer and every convolution without groups is adapted, if it is not smaller than the rank."""
    network = base(family)
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    targets = [
        name
        for name, layer in layers.items()
        if getattr(layer, "groups", 1) == 1 and min(layer.weight.shape[:2]) >= RANK
    ]
    options = {"rank": RANK, "kinds": ["conv", "linear"], "targets": targets, "dropout": 0.0}
    built = ADAPTERS.build(adapter, {} if adapter == "Full" else options)
    gate = SigmoidGate(tau=0.5, temperature=0.1) if built.needs_gate else None
    if gate is not None:
        gate.calibrate([0.0, 1.0], ScorerCard(name="test", low=0, high=1))
    return AdaptedBackbone(network, built, gate)


def images() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embed(network: AdaptedBackbone) -> Tensor:
    embedding: Tensor = network(images(), QUALITY if network.needs_quality else None)
    return embedding


def learned(network: AdaptedBackbone) -> AdaptedBackbone:
    """After a step that moved everything that is trained."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += STEP * torch.randn(parameter.shape, generator=generator)
    return network


@each
def test_unchanged_at_the_start(adapter: str, family: str) -> None:
    torch.testing.assert_close(embed(adapted(adapter, family)), base(family)(images()), rtol=1e-4, atol=1e-5)


@each
def test_exactly_what_is_trained_gets_gradients(adapter: str, family: str) -> None:
    """Everything in full fine-tuning; of LoRA the factors alone: norms are frozen, and their statistics stay."""
    network = learned(adapted(adapter, family)).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    embed(network).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        assert adapter == "Full" or parameter.requires_grad == (".low_rank_" in name), name
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


@pytest.mark.parametrize("family", BACKBONES.names())
def test_every_image_has_a_gate_of_its_own(family: str) -> None:
    """Whatever becomes of an image inside: tokens, windows, maps."""
    network, gates = learned(adapted("DualLoRA", family)), torch.tensor([0.1, 0.9])
    with torch.no_grad():
        together = network.with_gate(images(), gates)
        alone = torch.cat([network.with_gate(images()[i : i + 1], gates[i : i + 1]) for i in range(2)])
        turned = network.with_gate(images(), gates.flip(0))
    size = together.abs().max()
    assert (together - alone).abs().max() < 1e-4 * size
    assert ((together - turned).abs().amax(dim=1) > 1e-3 * size).all()


@each
def test_merged_equals_unmerged_and_not_the_base(adapter: str, family: str) -> None:
    network = learned(adapted(adapter, family))
    with torch.no_grad():
        found = embed(network)
        merged = network.merged(float(GATE[0]))(images())
        old = base(family)(images())
    size = found.abs().max()
    assert (merged - found).abs().max() < 1e-4 * size
    assert (old - found).abs().max() > 1e-3 * size
