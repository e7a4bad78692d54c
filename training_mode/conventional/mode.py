"""Conventional training: one network, one margin head, every image on its own."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from facelab.backbone.base import Backbone
from facelab.data.base import Batch
from facelab.engine.loop import StepOutput
from facelab.engine.shadow import Shadow
from facelab.errors import in_range
from facelab.head.classifier import Classifier
from facelab.training_mode.base import MODES, Supplies, TrainingMode


@MODES.register("conventional")
class Conventional(TrainingMode):
    """Image -> embedding -> classifier with a margin head -> loss.

    Args:
        supplies: The network, and the settings' classifier with its head.
        ema: Decay of a moving average of the weights, for example 0.9995, or None. The average is what is evaluated and
            exported.

    Raises:
        ConfigError: If the settings have no classifier, or ema is out of range.
    """

    def __init__(self, supplies: Supplies, ema: float | None = None) -> None:
        super().__init__(supplies)
        self.classifier = supplies.build_classifier()
        if ema is not None:
            in_range("mode: ema", ema, 0.0, 1.0, high_open=True)
            self.require_whole("a moving average of the weights (ema)")
        self.shadow = None if ema is None else Shadow(self.network, decay=ema)

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its loss looks at no scores; a network that takes them gets them."""
        return cls is not Conventional

    def host_work(self) -> str:
        """Nothing, but who adds to this mode has to say it anew."""
        return "" if type(self) is Conventional else super().host_work()

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        output = self.classifier(self.embed(batch), batch.label)
        return StepOutput(output.loss, output.metrics)

    def after_update(self) -> None:
        """Move the averaged weights, and what the owner of the class rows changes without a gradient."""
        super().after_update()
        if self.shadow is not None:
            self.shadow.update(self.network)

    def networks(self) -> Mapping[str, nn.Module]:
        """The network, and its average as ``ema``."""
        return {**super().networks(), **({} if self.shadow is None else {"ema": self.shadow.network})}

    def row_owners(self) -> Mapping[str, Classifier]:
        """The classifier."""
        return {"classifier": self.classifier}

    def inference_network(self) -> Backbone:
        """The averaged network if there is one, else the trained one."""
        return self.network if self.shadow is None else self.shadow.network

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; class rows come on their own."""
        former = state.get("shadow")  # where versions up to 0.1 have the average
        super().load_state({**state, "ema": former["network"]} if former else state)
