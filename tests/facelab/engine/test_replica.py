"""Replicas: two processes against one, for a call and for inner features; norm, state, and the view for evaluation."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from facelab import distributed
from facelab.backbone.base import Backbone, Features
from facelab.engine.replica import Compression, DataParallel, Replica, replicate
from facelab.inputs import InputSpec

IMAGES = 6  # of the global batch


class Small(Backbone):
    """A network with BatchNorm and one map, which `features` alone shows."""

    def __init__(self) -> None:
        super().__init__(InputSpec(height=4, width=4), 5)
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.output = nn.Linear(16, 5)

    def features(self, image: Tensor) -> Features:
        maps = self.norm(self.stem(image)).tanh()
        return Features(self.output(maps.flatten(1)), maps=(maps,))


def network() -> Small:
    torch.manual_seed(0)
    return Small().double()


def images() -> Tensor:
    """This process's part of the global batch."""
    whole = torch.randn(IMAGES, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start, stop = distributed.class_range(IMAGES, distributed.rank(), distributed.world_size())
    return whole[start:stop]


def by_call(replica: Replica[Small], image: Tensor) -> Tensor:
    return replica(image).square().mean()


def by_features(replica: Replica[Small], image: Tensor) -> Tensor:
    found = replica.features(image)
    return found.embedding.square().mean() + found.maps[0].exp().mean()


def by_both(replica: Replica[Small], image: Tensor) -> Tensor:
    """Two forward passes before one backward pass."""
    return by_call(replica, image) + by_features(replica, image.flip(3))


BITS: dict[Compression, int] = {"fp16": 11, "bf16": 8}  # that a number keeps, the first one included
LOSSES = {"call": by_call, "features": by_features, "both": by_both}


@dataclass(frozen=True)
class Result:
    """What one process saw: gradients by loss, their norms, and gradients that were accumulated without talking."""

    form: str
    gradients: dict[str, list[Tensor]]
    norms: dict[str, Tensor]
    alone: list[Tensor]
    accumulated: list[Tensor]
    compressed: dict[Compression, list[Tensor]]


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def train() -> Result:
    net = network().eval()  # BatchNorm of a part of the batch would differ from that of the whole
    replica = replicate(net)
    found, norms = {}, {}
    for name, loss in LOSSES.items():
        net.zero_grad()
        loss(replica, images()).backward()
        found[name], norms[name] = gradients(net), replica.gradient_norm()
    net.zero_grad()
    with replica.no_sync():
        by_features(replica, images()).backward()
    alone = gradients(net)
    by_features(replica, images()).backward()
    accumulated = gradients(net)
    compressed: dict[Compression, list[Tensor]] = {}
    for name in BITS:
        net = network().eval()
        halved = replicate(net, name)
        by_call(halved, images()).backward()
        compressed[name] = gradients(net)
    return Result(type(replica).__name__, found, norms, alone, accumulated, compressed)


@pytest.fixture(scope="module")
def one() -> Result:
    return train()


@pytest.fixture(scope="module")
def two() -> list[Result]:
    return distributed.run_processes(train, 2)


def test_the_form_follows_from_the_number_of_processes(one: Result, two: list[Result]) -> None:
    assert one.form == Replica.__name__
    assert {result.form for result in two} == {DataParallel.__name__}


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_gradients_of_one(name: str, one: Result, two: list[Result]) -> None:
    for result in two:
        torch.testing.assert_close(result.gradients[name], one.gradients[name])
        torch.testing.assert_close(result.norms[name], one.norms[name])


@pytest.mark.parametrize("name", BITS)
def test_gradients_may_travel_in_half_of_the_bytes(name: Compression, one: Result, two: list[Result]) -> None:
    """Each of three roundings, of both shares and of their sum, errs by half of the last bit."""
    first, second = two
    for exact, sent, received in zip(
        one.gradients["call"], first.compressed[name], second.compressed[name], strict=True
    ):
        assert sent.equal(received)
        assert sent.dtype == exact.dtype
        assert not torch.allclose(sent, exact, rtol=1e-6)
        largest = float(exact.abs().max())
        torch.testing.assert_close(sent, exact, rtol=0, atol=3 * largest * 2.0 ** -BITS[name])
    assert all(map(torch.equal, one.compressed[name], one.gradients["call"])), "alone there is nothing to send"


def test_gradients_are_kept_until_the_pass_that_exchanges_them(one: Result, two: list[Result]) -> None:
    first, second = two
    assert not torch.allclose(first.alone[0], second.alone[0])
    whole = [2 * gradient for gradient in one.gradients["features"]]
    for result in two:
        torch.testing.assert_close(result.accumulated, whole)


def test_gradient_norm_is_that_of_torch() -> None:
    net = network()
    replica = replicate(net)
    assert replica.gradient_norm().item() == 0.0
    net.stem.requires_grad_(False)
    by_call(replica, images()).backward()
    assert torch.equal(replica.gradient_norm(), clip_grad_norm_(net.parameters(), 1e9))


def test_state_round_trip() -> None:
    net, other = network(), network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    net.norm.running_mean = torch.full((4,), 3.0).double()
    replicate(other).load(replicate(net).state())
    assert replicate(net).state().keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())


def evaluate() -> tuple[Tensor, Tensor, Tensor]:
    """The mean of BatchNorm inside the view, after it, and after one that an exception left."""
    net = network()
    replica = replicate(net)
    mean = net.norm.get_buffer("running_mean")
    mean.fill_(1.0 + distributed.rank())
    with replica.inference_view() as seen:
        assert seen is net
        inside = mean.clone()
    after = mean.clone()
    with pytest.raises(KeyError), replica.inference_view():
        raise KeyError
    return inside, after, mean


def test_the_view_has_the_buffers_of_the_first_process_and_gives_the_own_ones_back() -> None:
    for rank, (inside, *after) in enumerate(distributed.run_processes(evaluate, 2)):
        assert inside.tolist() == [1.0] * 4
        assert all(mean.tolist() == [1.0 + rank] * 4 for mean in after)
