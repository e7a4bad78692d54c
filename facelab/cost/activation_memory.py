"""Memory that training keeps between the forward and the backward pass."""

import torch
from torch import Tensor, nn

from facelab.cost.network_cost import NEEDS_DATA, plain_attention, shapes_of_inputs, without_data

BATCHES = (2, 3)  # BatchNorm trains on two images at least


def activation_bytes(network: nn.Module, size: tuple[int, int]) -> int | None:
    """Bytes of activations that autograd keeps for each image of a training batch, in the network's own dtype.

    What every further image adds: all storages that the forward pass in training mode saves for the backward pass, each
    once, without parameters and buffers. Attention counts with its N x N weights (fused kernels keep less); what a
    kernel needs for a moment, gradients and the optimiser are not in it.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).

    Returns:
        None if the network cannot run without data.
    """
    shadow = without_data(network).train()
    try:
        fewer, more = (_saved_bytes(shadow, *shapes_of_inputs(batch, size)) for batch in BATCHES)
    except NEEDS_DATA:
        return None
    # What does not grow with the batch cancels out.
    return more - fewer


def _saved_bytes(network: nn.Module, *inputs: Tensor) -> int:
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # they are held, so that no address comes twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), plain_attention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(*inputs)
    return sum(storage.nbytes() for storage in saved.values())
