"""Scores that a device computes in each step, looked at without waiting for it."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor


class UnreadScores:
    """Copies scores to the processor, and looks at each as soon as it is there: some steps later, on a GPU.

    Args:
        require: Raises where scores, (B,), are not as they should be.
    """

    def __init__(self, require: Callable[[Tensor], None]) -> None:
        self._require = require
        self._coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def add(self, scores: Tensor) -> None:
        """Look at scores, (B,), soon; and now at those before them that have come.

        Raises:
            DataError: Whatever `require` raises.
        """
        if scores.device.type != "cuda":
            self._require(scores)
            return
        # Pinned, because a copy to other memory would wait for the device.
        copy = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        copy.copy_(scores, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(scores.device))
        self._coming.append((copy, event))
        self.read()

    def read(self, *, wait: bool = False) -> None:
        """Look at the scores that have come, or at all of them.

        Raises:
            DataError: Whatever `require` raises.
        """
        while self._coming and (wait or self._coming[0][1].query()):  # type: ignore[no-untyped-call]
            copy, event = self._coming.popleft()
            event.synchronize()
            self._require(copy)
