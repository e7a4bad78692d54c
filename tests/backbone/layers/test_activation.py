"""The quick PReLU has PyTorch's values and gradients."""

import pytest
import torch
from torch import nn

from facelab.backbone.layers.activation import PReLU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_pytorch(dtype: torch.dtype, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, 6, generator=generator, dtype=dtype).contiguous(memory_format=layout)
    x[0, 0, 0, 0] = 0.0  # the kink: PyTorch takes the slope there
    gradient = torch.randn(x.shape, generator=generator, dtype=dtype)
    slope = torch.linspace(-0.2, 0.5, 5, dtype=dtype)
    results = []
    for module in (PReLU(5), nn.PReLU(5)):
        module = module.to(dtype)
        module.weight.data.copy_(slope)
        leaf = x.clone().requires_grad_()
        output = module(leaf)
        output.backward(gradient)
        results.append((output, leaf.grad, module.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_second_derivative_is_right() -> None:
    module = PReLU(2).double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradgradcheck(module, (x,))


def test_state_is_that_of_pytorch() -> None:
    PReLU(4).load_state_dict(nn.PReLU(4).state_dict())
