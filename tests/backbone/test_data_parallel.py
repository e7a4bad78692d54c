"""Every backbone trains in two processes without a search for unused parameters."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from facelab import distributed
from facelab.backbone.base import BACKBONES
from facelab.engine.replica import replicate

SMALL: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "small.yaml").read_text())
STEPS = 2  # the second one fails where a parameter had no gradient in the first


def train(name: str, options: dict[str, Any]) -> list[Tensor]:
    """The parameters after two steps on images that differ between the processes."""
    torch.manual_seed(0)
    network = BACKBONES.build(name, {"input_spec": {"height": 32, "width": 32}, "feat_dim": 8, **options}).train()
    replica = replicate(network)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    generator = torch.Generator().manual_seed(distributed.rank())
    for _ in range(STEPS):
        optimizer.zero_grad()
        embedding = replica(torch.rand(2, 3, 32, 32, generator=generator))
        (embedding * torch.linspace(-1, 1, 8)).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


def train_all(small: dict[str, dict[str, Any]]) -> dict[str, list[Tensor]]:
    """Every backbone; all in one start of processes, because starting takes longer than computing."""
    return {name: train(name, options) for name, options in small.items()}


@pytest.fixture(scope="module")
def two() -> list[dict[str, list[Tensor]]]:
    return distributed.run_processes(train_all, 2, {name: SMALL.get(name, {}) for name in BACKBONES.names()})


@pytest.mark.parametrize("name", BACKBONES.names())
def test_two_processes_keep_equal_parameters(name: str, two: list[dict[str, list[Tensor]]]) -> None:
    first, second = (result[name] for result in two)
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert bool(one.isfinite().all())
        assert torch.equal(one, other)
