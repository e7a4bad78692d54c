"""Gradient checkpointing that recomputes in the circumstances of the forward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from facelab.forward_pass import forward_pass, known_in_pass


def recomputed(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``block(*inputs)`` whose inner values are not kept but computed again in the backward pass.

    In whatever thread the backward pass is, the second computation knows of its forward pass what the first one did:
    adapted layers find the gates of their batch again. Random numbers repeat, and the running statistics of a module's
    BatchNorm see the batch once.
    """
    if torch.compiler.is_compiling():  # a compiled graph holds the gates, and what is to be repeated as if it were pure
        compiled: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return compiled
    known = known_in_pass()

    def run(*values: Tensor) -> Tensor:
        with forward_pass(known):
            return block(*values)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), running_statistics_kept(block)

    # The reentrant form takes no contexts, and gives no gradients where the input is an image, which has none.
    result: Tensor = checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts)
    return result


class Blocks(nn.Sequential):
    """Blocks one behind the other; with checkpointing, training keeps of each only what goes into it.

    Args:
        blocks: Modules that take and give one tensor.
        checkpointing: Whether to compute the blocks again in the backward pass: less memory, one more forward pass.
    """

    def __init__(self, *blocks: nn.Module, checkpointing: bool = False) -> None:
        super().__init__(*blocks)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """What the last block gives."""
        for block in self:
            x = self.step(block, x)
        return x

    def step(self, block: nn.Module, x: Tensor) -> Tensor:
        """What one of the blocks gives, for networks that look at the maps between them."""
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        output: Tensor = recomputed(block, x) if again else block(x)
        return output


@contextmanager
def running_statistics_kept(block: Callable[..., Tensor]) -> Iterator[None]:
    """Normalise by the batch, but leave the running statistics: they have seen this batch in the forward pass."""
    modules = block.modules() if isinstance(block, nn.Module) else ()
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # A momentum of 0 moves no average, and without a counter nothing is counted.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
