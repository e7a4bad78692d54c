"""The contract of every training mode, and their registry."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facelab import distributed
from facelab.backbone.base import Backbone
from facelab.citation import Citation
from facelab.data.base import Batch, Labels
from facelab.engine.loop import StepOutput
from facelab.registry import Registry


class TrainingMode(ABC):
    """A way of training: owns networks, loss and augmentation. The loop sees only `step` and `after_update`.

    A mode is built by its registered name from what the program supplies (``backbone``, ``classifier`` …) and from its
    own
    options in the configuration.
    """

    citation: ClassVar[Citation | None] = None

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Whether its loss looks at the quality scores of a batch, through a gate or as they are.

        Scores and gates that neither mode nor network reads are refused, because scoring takes long.

        Args:
            options: The mode's own options in the configuration.
        """
        return True

    @abstractmethod
    def step(self, batch: Batch) -> StepOutput:
        """Forward pass of one batch on the device."""

    @abstractmethod
    def trained_modules(self) -> Iterable[nn.Module]:
        """Modules whose parameters are equal on all processes and are to be optimised."""

    @abstractmethod
    def row_modules(self) -> Iterable[nn.Module]:
        """Modules whose parameters are class rows, of which each process holds its own range."""

    @abstractmethod
    def inference_network(self) -> Backbone:
        """The network that is evaluated and exported."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What resuming needs beside optimiser and class rows; equal on all processes."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""

    @abstractmethod
    def local_state(self) -> dict[str, Tensor]:
        """Buffers that differ between processes, such as BatchNorm statistics."""

    @abstractmethod
    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `local_state` gave."""

    def check_batches(
        self, parts: Iterable[NDArray[np.int64]], labels: Labels, quality: NDArray[np.float32] | None
    ) -> None:
        """Called once before training; a mode refuses here what the sampler's batches cannot give it.

        Args:
            parts: Rows of the images in each process's part of the first batches, (B,).
            labels: Class of each image of the source, (N,).
            quality: Their quality scores, (N,), if there are any.

        Raises:
            ConfigError: If the mode cannot train on such batches.
        """

    def after_update(self) -> None:
        """Called once after each update of the optimiser."""

    def between_updates(self) -> AbstractContextManager[None]:
        """Context for a forward and backward pass whose gradients are only accumulated, so processes need not talk."""
        return nullcontext()


def data_parallel(network: nn.Module) -> nn.Module:
    """The network as this process trains it: wrapped, if there are several, so that gradients are averaged over them.

    Buffers are not broadcast: each process keeps its own BatchNorm statistics, and those of the first one are exported.
    """
    if distributed.world_size() == 1:
        return network
    known = inspect.signature(DistributedDataParallel).parameters
    renamed = "forward_sync_buffers" in known  # since torch 2.13
    keep_buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return DistributedDataParallel(network, **keep_buffers)


@contextmanager
def exported_buffers(network: nn.Module) -> Iterator[None]:
    """Context in which every process has the buffers of the first one; afterwards each has its own again.

    Processes keep BatchNorm statistics of their own while they train. Without this, each would embed its share of the
    test images with a slightly different network, and none of the results would be that of the exported one.
    """
    own = [buffer.clone() for buffer in network.buffers()]
    for buffer in network.buffers():
        distributed.broadcast_into(buffer, 0)
    try:
        yield
    finally:
        for buffer, kept in zip(network.buffers(), own, strict=True):
            buffer.copy_(kept)


def without_sync(replica: nn.Module) -> AbstractContextManager[None]:
    """Context in which ``replica`` only accumulates gradients."""
    if isinstance(replica, DistributedDataParallel):
        context: AbstractContextManager[None] = replica.no_sync()
        return context
    return nullcontext()


MODES: Registry[TrainingMode] = Registry("mode", "facelab.training_mode")
