"""The contract of every training mode, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.backbone.base import Backbone
from facelab.citation import Citation
from facelab.data.base import Batch, Labels
from facelab.engine.loop import StepOutput
from facelab.engine.replica import Replica
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
    def replicas(self) -> Iterable[Replica[Backbone]]:
        """The networks in training, as this process runs them."""

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

    @contextmanager
    def between_updates(self) -> Iterator[None]:
        """Context for a forward and backward pass whose gradients are only accumulated, so processes need not talk."""
        with ExitStack() as contexts:
            for replica in self.replicas():
                contexts.enter_context(replica.no_sync())
            yield

    def inference(self) -> Replica[Backbone]:
        """The network that is evaluated and exported, as this process runs it."""
        network = self.inference_network()
        return next((one for one in self.replicas() if one.network is network), Replica(network))


MODES: Registry[TrainingMode] = Registry("mode", "facelab.training_mode")
