"""The fused BatchNorm at its edges, beside PyTorch's layers: shapes, layouts, broken numbers, what is frozen."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.fused_norm import NormBlock

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels first": lambda x: x.contiguous(),
    "every second column": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "some of more channels": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
    "turned": lambda x: x.mT.contiguous().mT,
    "one image for all": lambda x: x[:1].expand_as(x),
}


def both(channels: int, place: torch.device, **options: Any) -> tuple[nn.BatchNorm2d, PReLU, nn.BatchNorm2d, PReLU]:
    """Layers for a fused block, and equal ones in float64 on the CPU."""
    generator = torch.Generator().manual_seed(1)
    norm, act = nn.BatchNorm2d(channels, **options), PReLU(channels)
    for tensor in [*norm.parameters(), *act.parameters()]:
        tensor.data.copy_(torch.rand(channels, generator=generator) + 0.1)
    return norm.to(place), act.to(place), copy.deepcopy(norm).double(), copy.deepcopy(act).double()


def fused() -> NormBlock:
    block = NormBlock()
    block.fused_norm = True
    return block


def drawn(shape: tuple[int, ...], place: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(place)


def assert_alike(x: Tensor, place: torch.device, tolerance: float = 1e-5, **options: Any) -> None:
    """Output, gradients and running statistics are those of float64."""
    norm, act, exact, exact_act = both(x.shape[1], place, **options)
    results = []
    for block, layers, given in ((fused(), (norm, act), x), (NormBlock(), (exact, exact_act), x.cpu().double())):
        given = given.detach().requires_grad_()
        output = block.normed(given, *layers, given)
        output.backward(drawn(tuple(x.shape), torch.device("cpu"), 3).to(output))
        found = [
            output,
            given.grad,
            *(one.grad for layer in layers for one in layer.parameters()),
            *layers[0].buffers(),
        ]
        results.append([one.detach().cpu().double() for one in found if one is not None])
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(4, 100, 3, 2), (8, 24, 1, 1), (1, 7, 5, 3), (2, 1, 3, 3), (2, 257, 1, 2)])
def test_shapes(shape: tuple[int, ...], place: torch.device) -> None:
    """Channels that are no power of two, one pixel, one image, one channel, more channels than a program takes."""
    assert_alike(drawn(shape, place), place)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, place: torch.device) -> None:
    assert_alike(LAYOUTS[layout](drawn((4, 6, 3, 5), place)), place)


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_large_means_leave_the_variance_whole(mean: float, place: torch.device) -> None:
    """A difference of mean squares would have lost it: 1e8 has steps of 8 in fp32."""
    x = drawn((16, 3, 8, 8), place) + mean
    norm, act, exact, _ = both(3, place, momentum=1.0)
    fused().normed(x, norm, act)
    exact(x.cpu().double())
    torch.testing.assert_close(norm.running_var.cpu().double(), exact.running_var, rtol=1e-3, atol=0)
    torch.testing.assert_close(norm.running_mean.cpu().double(), exact.running_mean, rtol=1e-6, atol=0)


def test_statistics_need_not_be_tracked(place: torch.device) -> None:
    assert_alike(drawn((4, 6, 3, 5), place), place, track_running_stats=False)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_numbers_spoil_their_channel_alone(value: float, place: torch.device) -> None:
    """As in PyTorch's, forward and backward, so that the check of gradients sees them."""
    norm, act, exact, exact_act = both(5, place)
    x, gradient = drawn((3, 5, 2, 2), place), drawn((3, 5, 2, 2), place, 3)
    x[1, 2, 0, 1] = value
    gradient[0, 4, 1, 1] = value
    results = []
    for block, layers, like in ((fused(), (norm, act), x), (NormBlock(), (exact, exact_act), torch.zeros(0).double())):
        given = x.detach().to(like).requires_grad_()
        output = block.normed(given, *layers)
        output.backward(gradient.to(output))
        found = [output, given.grad, layers[0].weight.grad, layers[0].running_mean, layers[0].running_var]
        results.append([one.detach().cpu().isfinite() for one in found if one is not None])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert 0 < int(results[0][0].sum()) < x.numel()


def test_one_value_for_each_channel_is_refused_as_ever() -> None:
    norm, act, _, _ = both(3, torch.device("cpu"))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        fused().normed(torch.zeros(1, 3, 1, 1), norm, act)


def test_no_image_gives_no_output() -> None:
    norm, act, _, _ = both(3, torch.device("cpu"))
    output = fused().normed(torch.zeros(0, 3, 4, 4, requires_grad=True), norm, act)
    assert output.shape == (0, 3, 4, 4)
    assert norm.weight.isfinite().all()


@pytest.mark.parametrize("frozen", [("weight",), ("weight", "bias"), ("slope",), ("x",), ("x", "weight", "bias")])
def test_what_is_frozen_gets_no_gradient_and_the_rest_keeps_its_own(
    frozen: tuple[str, ...], place: torch.device
) -> None:
    results = []
    for names in ((), frozen):
        norm, act, _, _ = both(4, place)
        x = drawn((3, 4, 3, 3), place).requires_grad_()
        given = {"weight": norm.weight, "bias": norm.bias, "slope": act.weight, "x": x}
        for name in names:
            given[name].requires_grad_(False)
        fused().normed(x, norm, act).square().sum().backward()
        results.append({name: one.grad for name, one in given.items()})
    for name, one in results[1].items():
        assert one is None if name in frozen else torch.equal(one, results[0][name])


def test_without_gradients_statistics_move_and_nothing_is_kept(place: torch.device) -> None:
    norm, act, exact, exact_act = both(4, place)
    x = drawn((3, 4, 3, 3), place)
    with torch.no_grad():
        output = fused().normed(x, norm, act)
        wanted = exact_act(exact(x.cpu().double()))
    assert not output.requires_grad
    torch.testing.assert_close(output.cpu().double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean.cpu().double(), exact.running_mean, rtol=1e-5, atol=1e-6)
    assert norm.num_batches_tracked == 1


def test_a_second_derivative_is_refused(place: torch.device) -> None:
    norm, act, _, _ = both(4, place)
    x = drawn((3, 4, 3, 3), place).requires_grad_()
    (first,) = torch.autograd.grad(fused().normed(x, norm, act).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="fused_norm_backward.*no autograd formula"):
        first.sum().backward()


def test_autocast_leaves_its_formats(place: torch.device) -> None:
    """Behind a convolution in bf16, with a residual in fp32; statistics and gradients of parameters stay fp32."""
    norm, act, _, _ = both(4, place)
    conv = nn.Conv2d(3, 4, 3).to(place)
    with torch.autocast(place.type, torch.bfloat16):
        output = fused().normed(conv(drawn((2, 3, 6, 6), place)), norm, act, drawn((2, 4, 4, 4), place))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    kinds = {one.dtype for one in (norm.running_mean, norm.weight.grad, act.weight.grad, conv.weight.grad)}
    assert kinds == {torch.float32}
