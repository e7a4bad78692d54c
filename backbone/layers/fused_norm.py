"""BatchNorm, the PReLU behind it and the residual that is added, in two passes over a map instead of up to five."""

from typing import Any

import torch
from torch import Tensor, nn

from facelab.backbone.layers.activation import PReLU
from facelab.compiler import require_compiler
from facelab.errors import ConfigError

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


class NormBlock(nn.Module):
    """A block that normalises maps by `normed`.

    Attributes:
        fused_norm: Whether `normed` runs as one operation while BatchNorm looks at the batch, see `fuse_norms`.
    """

    fused_norm: bool = False

    def normed(
        self, x: Tensor, norm: nn.Module, act: nn.Module | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """``act(norm(x)) + residual``, of which the last two may be left out.

        Args:
            x: (B, C, H, W).
            norm: A `torch.nn.BatchNorm2d`, whose running statistics move as its own forward pass moves them.
            act: Activation; `PReLU` and `torch.nn.Identity` can be fused.
            residual: As ``x``.
        """
        slope = act.weight if isinstance(act, PReLU) else None
        if self.fused_norm and isinstance(norm, nn.BatchNorm2d) and _can_be_fused(norm, act, x):
            return _batch_norm(x, norm, slope, residual)
        output: Tensor = norm(x) if act is None else act(norm(x))
        return output if residual is None else output.add_(residual)  # no backward pass needs the sum's first operand


def fuse_norms(network: nn.Module, device: torch.device) -> None:
    """Have every `NormBlock` of a network run fused in training; weights, their names and evaluation stay.

    Args:
        network: A network.
        device: Where it is trained.

    Raises:
        ConfigError: If the device is no GPU, Triton or a C compiler is missing, the network has no such block, or none
            whose BatchNorm looks at the batch.
    """
    off = "training.fused_norm=false"
    if device.type != "cuda":
        raise ConfigError(
            f"training.fused_norm is for GPUs, but the network is on the {device.type.upper()}; set {off}."
        )
    require_compiler("training.fused_norm", device, off)
    blocks = [module for module in network.modules() if isinstance(module, NormBlock)]
    if not blocks:
        raise ConfigError(
            "training.fused_norm is for the BatchNorms of IResNet and MobileFaceNet, and this network "
            f"({type(network).__name__}) has none of their blocks; set {off}."
        )
    if not any(_looks_at_the_batch(network)):
        raise ConfigError(
            "training.fused_norm is for BatchNorms that look at the batch, and the adapter keeps all of this network "
            f"as they are; set {off}."
        )
    for block in blocks:
        block.fused_norm = True


def _looks_at_the_batch(network: nn.Module) -> list[bool]:
    """Of each BatchNorm over maps, whether it does in training."""
    training = network.training
    looks = [module.training for module in network.train().modules() if isinstance(module, nn.BatchNorm2d)]
    network.train(training)
    return looks


def _can_be_fused(norm: nn.BatchNorm2d, act: nn.Module | None, x: Tensor) -> bool:
    """Whether a BatchNorm normalises by the batch, as the kernels do; else it is a scale and a shift, or refuses."""
    usual = norm.training and norm.affine and norm.momentum is not None
    known = act is None or isinstance(act, PReLU | nn.Identity)
    # Who hung a hook on a layer waits for its call.
    hooked = any(one._forward_hooks or one._forward_pre_hooks for one in (norm, act) if one is not None)
    return usual and known and not hooked and x.dtype in PRECISIONS and x.numel() > x.shape[1]


def _batch_norm(x: Tensor, norm: nn.BatchNorm2d, slope: Tensor | None, residual: Tensor | None) -> Tensor:
    """`fused_norm` with the weights of a BatchNorm; moves its running statistics."""
    added = None if residual is None else residual.to(x.dtype)
    output: Tensor
    output, mean, variance = fused_norm(x, norm.weight, norm.bias, slope, added, norm.eps)
    assert norm.momentum is not None, "see _can_be_fused"
    with torch.no_grad():
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if norm.running_mean is not None and norm.running_var is not None:
            values = x.numel() // x.shape[1]
            unbiased = variance * (values / (values - 1))
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    return output


def _in_channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("facelab::fused_norm", mutates_args=())
def fused_norm(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``prelu(batch_norm(x)) + residual`` with the statistics of the batch (Ioffe and Szegedy, 2015, Algorithm 1).

    Args:
        x: (B, C, H, W), fp32, bf16 or fp16; in channels_last, or else it is copied.
        weight: Scale, (C,).
        bias: Shift, (C,).
        slope: Of the PReLU, (C,), or None for no activation.
        residual: What is added in the end, as ``x``, or None.
        eps: Added to the variance.

    Returns:
        The output, as ``x`` and in channels_last; mean and biased variance of the batch, fp32, (C,), of which there
        are no gradients. In between everything is fp32: the output is rounded once.
    """
    from facelab.triton_kernels.batch_norm import forward

    added = None if residual is None else _in_channels_last(residual)
    return forward(_in_channels_last(x), weight, bias, slope, added, eps)


@torch.library.custom_op("facelab::fused_norm_backward", mutates_args=())
def fused_norm_backward(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `fused_norm`.

    Args:
        gradient: Of the output.
        x: As `fused_norm` got it; the output is computed again, which costs less than keeping it.
        mean: What `fused_norm` returned.
        variance: Likewise.
        weight: As `fused_norm` got it; so are the others.
        bias: See there.
        slope: See there.
        eps: See there.

    Returns:
        The gradient of ``x``, and those of weight, bias and, if there is one, slope, fp32, (2 or 3, C).
    """
    from facelab.triton_kernels.batch_norm import backward

    maps = (_in_channels_last(gradient), _in_channels_last(x))
    return backward(*maps, mean, variance, weight, bias, slope, eps)


@fused_norm.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x, memory_format=torch.channels_last), mean, variance


@fused_norm_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    sums = x.new_empty((2 if slope is None else 3, x.shape[1]), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, slope, residual, ctx.eps = inputs
    ctx.save_for_backward(x, output[1], output[2], weight, bias, slope)
    ctx.adds = residual is not None
    ctx.set_materialize_grads(False)  # of mean and variance there are none


def _differentiate(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    x, mean, variance, weight, bias, slope = ctx.saved_tensors
    of_x, sums = fused_norm_backward(gradient, x, mean, variance, weight, bias, slope, ctx.eps)
    of_slope = None if slope is None else sums[2].to(slope.dtype)
    added = gradient if ctx.adds else None
    return of_x, sums[0].to(weight.dtype), sums[1].to(bias.dtype), of_slope, added, None


fused_norm.register_autograd(_differentiate, setup_context=_keep)
