"""THOP's count is THOP's, and its parts are named."""

import copy
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from facelab.cost.thop_count import count_by_thop, thop_missing


class Odd(nn.Conv2d):
    """A subclass, which THOP does not see."""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.PReLU(4))
        self.odd = Odd(4, 4, 1)
        self.fc = nn.Linear(4 * 36, 2)

    def forward(self, image: Tensor) -> Tensor:
        embedding: Tensor = self.fc(self.odd(self.body(image)).flatten(1))
        return embedding @ embedding.T


@pytest.fixture
def no_thop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    thop_missing.cache_clear()
    monkeypatch.setitem(sys.modules, "thop", None)
    yield
    thop_missing.cache_clear()


def test_equals_a_direct_run() -> None:
    thop = pytest.importorskip("thop")
    network = Small().train()
    names = set(network.state_dict())
    found = count_by_thop(network, (8, 8))
    assert found is not None
    assert found.total == thop.profile(copy.deepcopy(network), (torch.zeros(1, 3, 8, 8),), verbose=False)[0]
    assert found.by_layer["Conv2d"] == 36 * 4 * 27
    assert found.by_layer["BatchNorm2d"] == 4 * 36 * 4  # 4 operations for each of 4 x 36 numbers
    assert found.by_layer["Linear"] == found.products - 36 * 4 * 27 == 4 * 36 * 2
    assert "Odd" not in found.by_layer
    assert sum(found.by_layer.values()) == found.total
    assert set(network.state_dict()) == names
    assert network.training


def test_a_network_that_looks_at_values_has_no_count() -> None:
    pytest.importorskip("thop")

    class Looks(nn.Linear):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum().item() > 0 else -image

    assert count_by_thop(Looks(2, 2), (8, 8)) is None


@pytest.mark.usefixtures("no_thop")
def test_without_thop_there_is_no_count() -> None:
    assert count_by_thop(Small(), (8, 8)) is None
    assert "pip install thop" in str(thop_missing())
