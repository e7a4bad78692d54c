"""A bridge to pytorch-metric-learning: its losses and miners by their names."""

import importlib
import inspect
from types import ModuleType
from typing import Any

from torch import Tensor

from facelab.errors import ConfigError, did_you_mean, first_line
from facelab.training_mode.triplet.objective import OBJECTIVES, Objective


@OBJECTIVES.register("MetricLearning")
class MetricLearning(Objective):
    """Any loss of the package pytorch-metric-learning, with any of its miners; what a loss learns is trained too.

    Args:
        num_classes: C; losses that have a row for each class get it.
        feat_dim: D, the length of an embedding, likewise as ``embedding_size``.
        loss: Name in ``pytorch_metric_learning.losses``, such as ``MultiSimilarityLoss``.
        options: Its arguments: numbers, texts, lists.
        miner: Name in ``pytorch_metric_learning.miners``, or None.
        miner_options: Its arguments.

    Raises:
        ConfigError: If the package is not installed, has no such name, or refuses the arguments.
    """

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        loss: str,
        options: dict[str, Any] | None = None,
        miner: str | None = None,
        miner_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = {"num_classes": num_classes, "embedding_size": feat_dim}
        self.loss = _build("losses", loss, options or {}, known)
        self.miner = None if miner is None else _build("miners", miner, miner_options or {}, {})

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """The loss of the global batch, ()."""
        mined = () if self.miner is None else (self.miner(embedding, label),)
        value: Tensor = self.loss(embedding, label, *mined)
        return value


def _build(kind: str, name: str, options: dict[str, Any], known: dict[str, Any]) -> Any:
    """A loss or a miner by its name."""
    found = getattr(_package(kind), name, None)
    if not inspect.isclass(found):
        names = [key for key, value in vars(_package(kind)).items() if inspect.isclass(value)]
        raise ConfigError(f"pytorch_metric_learning.{kind} has no '{name}'.{did_you_mean(name, names)}")
    wanted = {key: value for key, value in known.items() if key in inspect.signature(found).parameters}
    try:
        return found(**{**wanted, **options})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"pytorch_metric_learning.{kind}.{name} refuses {options}: {first_line(error)}") from None


def _package(kind: str) -> ModuleType:
    try:
        return importlib.import_module(f"pytorch_metric_learning.{kind}")
    except ImportError:
        raise ConfigError(
            "the objective MetricLearning needs the package pytorch-metric-learning, which is not installed: "
            "pip install 'facelab[metric-learning]'."
        ) from None
