"""A hash of what a network is made of: names, types, shapes and values of its state."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def state_hash(state: Mapping[str, Tensor], start: str = "") -> str:
    """A hash (32 hex digits) of every tensor of a state dict, in its order.

    Args:
        state: Tensors by name, on any device.
        start: Text that belongs to the hash too, such as a description of the structure.
    """
    digest = hashlib.sha256(start.encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because NumPy knows no bfloat16; flat, because a tensor without dimensions has no view as bytes.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
