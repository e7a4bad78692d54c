"""What went wrong first in training, remembered on the device."""

import torch
from torch import Tensor

from facelab.errors import DivergenceError

CAUSES = (
    "the loss was not finite",
    "a gradient was not finite",
    "gradients overflowed fp16 at every loss scale down to 1",
)


class Watch:
    """Remembers on the device what went wrong first, so that nobody has to wait for it.

    Args:
        device: Where the flags live.

    Attributes:
        bad_loss: Whether a loss since the last update was not finite, () bool.
    """

    def __init__(self, device: torch.device) -> None:
        self.bad_loss = torch.zeros((), dtype=torch.bool, device=device)
        self._update = torch.zeros((), dtype=torch.int64, device=device)
        self._first = torch.zeros((), dtype=torch.int64, device=device)  # updates count from 1; 0 is none
        self._cause = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def tripped(self) -> Tensor:
        """Whether anything went wrong so far, () bool."""
        return self._first > 0

    def see_loss(self, loss: Tensor) -> None:
        """Look at a () loss."""
        self.bad_loss.logical_or_(~torch.isfinite(loss.detach()))

    def begin(self, update: int) -> None:
        """Begin an update with its number, from 1."""
        self._update.fill_(update)

    def close(self, *signs: Tensor) -> None:
        """End an update. All is changed in place, because a CUDA graph knows tensors by where they lie.

        Args:
            signs: () bool for each of `CAUSES`; the first that is set is kept, if nothing was before.
        """
        # The first sign names the cause: a broken loss breaks its gradients too.
        for cause, sign in enumerate(signs):
            first = sign & ~self.tripped
            self._first.copy_(torch.where(first, self._update, self._first))
            self._cause.masked_fill_(first, cause)
        self.bad_loss.zero_()

    def check(self) -> None:
        """Read the flags; waits for the device.

        Raises:
            DivergenceError: If something went wrong; the message says what and in which update.
        """
        update, cause = torch.stack([self._first, self._cause]).tolist()
        if update:
            raise DivergenceError(
                f"{CAUSES[cause]} in update {update}; the parameters are as they were before it. Lower optimizer.lr, "
                "lengthen schedule.warmup_epochs, set training.clip_norm, or use training.precision=fp32."
            )
