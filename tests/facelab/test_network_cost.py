"""Parameters and multiply-accumulates, counted by hand and compared with published numbers."""

import pytest
import torch
from torch import Tensor, nn

from facelab.catalogue import resolve
from facelab.network_cost import NetworkCost, network_cost


def test_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 16, 5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # 4 x 4 outputs of 4 channels from 3 x 3 x 3 inputs, then 64 x 5
    assert network_cost(network.train(), (8, 8)) == NetworkCost(4 * 27 + 64 * 5 + 5, 16 * 4 * 27 + 64 * 5)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    # EdgeFace (2024) prints 94.72 MFLOPs, two for each multiply-accumulate; InsightFace prints multiply-accumulates
    [("EdgeFace-XXS", 1.24e6, 94.72e6 / 2), ("r50", 43.59e6, 6.33e9)],
)
def test_published_numbers(name: str, parameters: float, macs: float) -> None:
    from facelab.backbone.base import BACKBONES

    registered, options = resolve(BACKBONES, name)
    cost = network_cost(BACKBONES.build(registered, {"feat_dim": 512, **options}), (112, 112))
    assert cost.parameters == pytest.approx(parameters, rel=0.01)
    assert cost.macs == pytest.approx(macs, rel=0.005)


def test_a_network_that_looks_at_values_has_no_count() -> None:
    class Looks(nn.Linear):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum().item() > 0 else -image

    assert network_cost(Looks(2, 2), (8, 8)) == NetworkCost(6, None)


def test_a_network_that_takes_quality() -> None:
    class Gated(nn.Linear):
        def forward(self, image: Tensor, quality: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image.flatten(1)) * quality[:, None]

    assert network_cost(Gated(12, 2), (2, 2), with_quality=True) == NetworkCost(26, 24)
