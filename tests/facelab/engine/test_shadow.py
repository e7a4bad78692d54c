"""Shadow networks: the average by its closed form, buffers, properties, round trip."""

import pytest
import torch
from torch import Tensor, nn

from facelab.engine.shadow import Buffers, Shadow
from facelab.errors import ConfigError


class Network(nn.Module):
    """A layer, statistics and a slope."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.slope = nn.PReLU()

    def forward(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.slope(self.norm(self.layer(rows))))


def mean(net: Network) -> Tensor:
    assert net.norm.running_mean is not None
    return net.norm.running_mean.clone()


def seen(net: Network) -> int:
    assert net.norm.num_batches_tracked is not None
    return int(net.norm.num_batches_tracked)


def move(net: nn.Module, seed: int) -> None:
    """Change parameters and statistics as a training step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    net(torch.randn(8, 3, generator=generator))


def tensors(net: nn.Module) -> list[Tensor]:
    return [value.clone() for value in net.state_dict().values()]


def test_starts_as_an_independent_copy() -> None:
    net = Network()
    shadow = Shadow(net)
    before = tensors(shadow.network)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors(net), strict=True))
    move(net, 1)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors(shadow.network), strict=True))
    assert not any(parameter.requires_grad for parameter in shadow.network.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_average_by_its_closed_form() -> None:
    net = Network()
    shadow = Shadow(net, decay=0.8)
    path = [net.layer.weight.detach().clone()]
    for seed in range(5):
        move(net, seed)
        shadow.update(net)
        path.append(net.layer.weight.detach().clone())
    expected = 0.8**5 * path[0] + sum(0.2 * 0.8 ** (5 - t) * path[t] for t in range(1, 6))
    torch.testing.assert_close(shadow.network.layer.weight.data, expected)


def test_decay_zero_is_the_network_itself() -> None:
    net = Network()
    shadow = Shadow(net, decay=0.0)
    move(net, 1)
    shadow.update(net)
    data = torch.randn(5, 3)
    assert torch.equal(shadow.network(data), net.eval()(data))


def test_network_that_rests_is_reached_and_left_alone() -> None:
    net = Network()
    shadow = Shadow(net, decay=0.5, buffers="average")
    before = tensors(net)
    shadow.update(net)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors(shadow.network), strict=True))


@pytest.mark.parametrize("buffers", ["copy", "average", "own"])
def test_buffers(buffers: Buffers) -> None:
    net = Network()
    shadow = Shadow(net, decay=0.75, buffers=buffers)
    old = mean(shadow.network)
    move(net, 1)
    shadow.update(net)
    expected = {"copy": mean(net), "average": 0.75 * old + 0.25 * mean(net), "own": old}
    torch.testing.assert_close(mean(shadow.network), expected[buffers])
    assert seen(shadow.network) == (0 if buffers == "own" else 1)
    assert not shadow.network.training
    assert shadow.network.norm.training == (buffers == "own")
    if buffers == "own":
        shadow.network(torch.randn(8, 3))
        assert not torch.equal(mean(shadow.network), old)


def test_tied_parameters_move_once() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    shadow = Shadow(net, decay=0.5)
    start = first.weight.detach().clone()
    with torch.no_grad():
        first.weight.add_(1.0)
    shadow.update(net)
    assert all(torch.allclose(value, start + 0.5) for value in shadow.network.state_dict().values())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"shadow decay is .*, but must lie in \[0, 1\)"):
        Shadow(Network(), decay=decay)


def test_unknown_buffers_are_refused() -> None:
    with pytest.raises(ConfigError, match="shadow buffers is 'averaged'. Did you mean 'average'"):
        Shadow(Network(), buffers="averaged")  # type: ignore[arg-type]
