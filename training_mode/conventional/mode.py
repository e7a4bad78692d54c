"""Conventional training: one network, one margin head, every image on its own."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from facelab.backbone.base import Backbone
from facelab.data.base import Batch
from facelab.engine.loop import StepOutput
from facelab.engine.replica import Replica, replicate
from facelab.engine.shadow import Shadow
from facelab.head.classifier import Classifier
from facelab.inputs import normalise
from facelab.training_mode.base import MODES, TrainingMode
from facelab.weights.snapshot import TRAINING
from facelab.weights.state_fit import load_weights, require_fit


@MODES.register("conventional")
class Conventional(TrainingMode):
    """Image -> embedding -> classifier with a margin head -> loss.

    Args:
        backbone: The network, on its device.
        classifier: Owner of the class rows and driver of the head, on the same device.
        ema: Decay of a moving average of the weights, for example 0.9995, or None. The average is what is evaluated and
            exported.
    """

    def __init__(self, backbone: Backbone, classifier: Classifier, ema: float | None = None) -> None:
        self.network = backbone.train()  # a loaded base comes in evaluation mode, without dropout, its BatchNorm still
        self.classifier = classifier
        self.shadow = None if ema is None else Shadow(backbone, decay=ema)
        self.replica = replicate(backbone)

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its loss looks at no scores; a network that takes them gets them."""
        return cls is not Conventional

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch."""
        output = self.classifier(self.embed(batch), batch.label)
        return StepOutput(output.loss, output.metrics)

    def embed(self, batch: Batch) -> Tensor:
        """Embeddings (B, D) of a batch, with gradients; a network that takes quality scores gets those of the batch."""
        quality = (batch.quality,) if self.network.needs_quality else ()
        return self.replica(normalise(batch.image, self.network.input_spec), *quality)

    def after_update(self) -> None:
        """Move the averaged weights."""
        if self.shadow is not None:
            self.shadow.update(self.network)

    def replicas(self) -> Iterable[Replica[Backbone]]:
        """The network."""
        return [self.replica]

    def trained_modules(self) -> Iterable[nn.Module]:
        """The network, and the head, where that learns something of its own."""
        return [self.network, self.classifier.head]

    def row_modules(self) -> Iterable[nn.Module]:
        """The classifier."""
        return [self.classifier]

    def inference_network(self) -> Backbone:
        """The averaged network if there is one, else the trained one."""
        return self.network if self.shadow is None else self.shadow.network

    def state(self) -> dict[str, Any]:
        """Weights, what the head remembers, and the moving average."""
        rows = self.classifier.row_tensors()
        head = {name: tensor for name, tensor in self.classifier.state_dict().items() if name not in rows}
        shadow = {} if self.shadow is None else self.shadow.state_dict()
        return {"network": self.network.state_dict(), "classifier": head, "shadow": shadow}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; class rows come on their own."""
        load_weights(self.network, state["network"], TRAINING)
        load_weights(self.classifier, {**self.classifier.row_tensors(), **state["classifier"]}, TRAINING)
        if self.shadow is not None:
            self.shadow.load_state_dict(state["shadow"])

    def local_state(self) -> dict[str, Tensor]:
        """BatchNorm statistics of this process."""
        return dict(self.network.named_buffers())

    def load_local_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `local_state` gave."""
        require_fit(dict(self.network.named_buffers()), state, "process-*.pt")
        for name, buffer in self.network.named_buffers():
            buffer.copy_(state[name])
