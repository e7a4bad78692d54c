"""Memory of large tensors that every step makes anew, which is not given back to the system in between."""

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST = 2**22  # bytes; what is smaller, the allocators of C libraries and of torch keep for themselves


class ReusedMemory:
    """Gives tensors whose memory is used again when nobody has them any more, neither Python nor autograd.

    Large memory that is freed goes back to the system, which clears it, page by page, when it is touched the next
    time: for the rows of a sample and their gradient that takes longer than what is done with them. There is as much
    of it as was in use at one time. On other devices than CPUs torch itself keeps what is freed.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, by pickle too, begins without memory."""
        return ReusedMemory, ()

    def empty(self, shape: torch.Size, like: Tensor) -> Tensor:
        """A tensor of any contents, of the type and on the device of another one."""
        size = shape.numel() * like.dtype.itemsize
        if like.device.type != "cpu" or size < LEAST:
            return like.new_empty(shape)
        free = [block for block in self._blocks if block.free]
        block = next((block for block in free if block.size >= size), None)
        if block is None:
            block = _Block(size)
            # Those that are free are too small, as they will be from now on.
            self._blocks = [block, *(one for one in self._blocks if one not in free)]
        return block.lend(size).view(like.dtype).view(shape)


class _Block:
    """Bytes that one tensor has at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = torch.empty(size, dtype=torch.uint8)  # of torch, for its alignment
        self._lent: weakref.ref[npt.NDArray[np.uint8]] | None = None

    @property
    def free(self) -> bool:
        return self._lent is None or self._lent() is None

    def lend(self, size: int) -> Tensor:
        lent = self._bytes.numpy()[:size]
        # The storage of what is made of an array holds the array as long as any tensor has that storage.
        self._lent = weakref.ref(lent)
        return torch.from_numpy(lent)
