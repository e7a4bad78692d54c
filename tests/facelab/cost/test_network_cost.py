"""Parameters and multiply-accumulates, counted by hand and compared with published numbers."""

import pytest
import torch
from torch import Tensor, nn

from facelab.catalogue import resolve
from facelab.cost.network_cost import NetworkCost, Operations, count_operations, network_cost, used_parameters


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


def test_a_network_that_multiplies_nothing() -> None:
    assert network_cost(nn.Flatten(), (8, 8)) == NetworkCost(0, 0)


def test_a_network_that_takes_quality() -> None:
    class Gated(nn.Linear):
        def forward(self, image: Tensor, quality: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image.flatten(1)) * quality[:, None]

    assert network_cost(Gated(12, 2), (2, 2), with_quality=True) == NetworkCost(26, 24)


def test_kinds_of_work_by_hand() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2, 2)
            self.norm = nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 6)

        def forward(self, image: Tensor) -> Tensor:
            tokens = self.fc(self.norm(self.conv(image)).flatten(2).transpose(1, 2))
            return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)

    # 4 x 4 positions of 4 channels from 2 x 2 x 3 inputs; 16 tokens from 4 to 6; 16 x 16 weights of 6 terms, twice
    work = count_operations(Small(), (8, 8))
    assert work == Operations(convolution=16 * 4 * 12, linear=16 * 4 * 6, attention=2 * 16 * 16 * 6, norm=64)
    assert network_cost(Small(), (8, 8)).macs == work.macs == 768 + 384 + 3072


def test_the_fast_path_of_pytorchs_attention_hides_nothing() -> None:
    class Encoder(nn.TransformerEncoderLayer):
        def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image.flatten(2))

    layer = Encoder(d_model=4, nhead=1, dim_feedforward=5, batch_first=True)
    # 3 tokens: to queries, keys and values and back, feed-forward, 3 x 3 weights of 4 terms, twice
    assert count_operations(layer, (2, 2)) == Operations(0, 3 * (4 * 12 + 4 * 4 + 4 * 5 + 5 * 4), 2 * 3 * 3 * 4, 0)
    assert torch.backends.mha.get_fastpath_enabled()


def test_parameters_in_use() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.never, self.training_only = nn.Linear(12, 2), nn.Linear(5, 5), nn.Linear(2, 2)
            self.used.weight.requires_grad_(False)  # frozen is not unused
            self.scale = nn.Parameter(torch.ones(2))
            self.shown = nn.Parameter(torch.ones(7))

        def forward(self, image: Tensor) -> Tensor:
            embedding = self.used(image.flatten(1)) * self.scale
            self.total = self.shown.sum()
            return self.training_only(embedding) if self.training else embedding

    network = Partly().train()
    assert used_parameters(network, (2, 2)) == 12 * 2 + 2 + 2
    assert network.training
    assert not network.used.weight.requires_grad
    assert network.scale.grad is None
    assert used_parameters(nn.Sequential(nn.Flatten()), (2, 2)) == 0


def test_a_network_that_looks_at_values_has_no_used_parameters() -> None:
    class Looks(nn.Linear):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum().item() > 0 else -image

    assert used_parameters(Looks(2, 2), (8, 8)) is None
    assert count_operations(Looks(2, 2), (8, 8)) is None
