"""Which layers an adapter changes."""

import pytest
from torch import nn

from facelab.adapter.targets import choose
from facelab.errors import ConfigError


@pytest.fixture
def network() -> nn.Module:
    return nn.ModuleDict({"dense": nn.Conv2d(4, 4, 3), "grouped": nn.Conv2d(4, 4, 3, groups=2), "fc": nn.Linear(4, 4)})


def test_the_kinds_of_layers(network: nn.Module) -> None:
    assert list(choose(network, ["*"], ["linear"])) == ["fc"]
    assert list(choose(network, ["*"], ["conv"])) == ["dense", "grouped"]
    assert list(choose(network, ["*"], ["linear", "dense_conv"])) == ["dense", "fc"]


def test_a_grouped_convolution_is_no_dense_one(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="'grouped' matches none of the 1 dense_conv layers. Could match: dense"):
        choose(network, ["grouped"], ["dense_conv"])
