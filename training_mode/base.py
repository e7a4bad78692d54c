"""The contract of every training mode, what modes are built from, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.backbone.base import Backbone
from facelab.catalogue import Spec, build
from facelab.citation import Citation
from facelab.data.base import Batch, Labels
from facelab.data.transforms.augment import View
from facelab.engine.loop import StepOutput
from facelab.engine.replica import N, Replica, Replicate, replicate
from facelab.errors import CheckpointError, ConfigError
from facelab.head.base import HEADS
from facelab.head.class_precision import ClassPrecision, check_class_precision
from facelab.head.classifier import CLASSIFIERS, Classifier
from facelab.head.compiled_loss import check_class_compile
from facelab.head.rows.feature_rows import FeatureRows
from facelab.head.sample_weight import SAMPLE_WEIGHTS
from facelab.inputs import normalise
from facelab.registry import Registry
from facelab.weights.snapshot import TRAINING
from facelab.weights.state_fit import OTHER_CLASSIFIER, require_fit
from facelab.weights.state_hash import state_hash

FROZEN = "frozen"
"""Under which a checkpoint keeps the hashes of frozen networks."""


def _nothing_to_load(of: Any, *_: Any) -> Any:
    raise ConfigError(f"'{of}' cannot be loaded: these supplies were made without a loader of models.")


@dataclass(frozen=True)
class Supplies:
    """What a mode is built from, beside its own options.

    Attributes:
        backbone: The network to train, on its device and with its adapters.
        num_classes: Classes of the training images.
        head: The settings' head, or None.
        classifier: The settings' owner of class rows, or None.
        seed: The run's seed.
        replicate: Makes of a network what this process trains; the mode never learns which form that has.
        load: Gives a trained network, in evaluation mode on the device of ``backbone``: a teacher, for example. It is
            named by a path, or as a backbone with ``weights`` among its options.
        load_rows: Gives the class rows of a trained run on the same people, those of the classes that this process
            owns, (C_own, D), on the device.
        embed_source: Gives the embeddings of all training images as they are stored, (N, D), by a network; they are
            kept in a folder.
        sample_weight: What weighs the samples of a batch by their losses over class rows, or None.
        class_precision: Format in which class rows are multiplied with embeddings.
        class_skip: Share of the gradient that may be left out where classes hardly matter.
        class_compile: Whether passes over chunks of the classes are compiled.
    """

    backbone: Backbone
    num_classes: int
    head: Spec | None = "ArcFace"
    classifier: Spec | None = "FullSoftmax"
    seed: int = 0
    replicate: Replicate = replicate
    load: Callable[[Path | Spec], Backbone] = _nothing_to_load
    load_rows: Callable[[Path | Spec], Tensor] = _nothing_to_load
    embed_source: Callable[[Backbone, Path], NDArray[np.float32]] = _nothing_to_load
    sample_weight: Spec | None = None
    class_precision: ClassPrecision = "fp32"
    class_skip: float = 0.0
    class_compile: bool = False

    def build_classifier(self) -> Classifier:
        """The classifier of the settings with its head, on the backbone's device; a new one at each call.

        Raises:
            ConfigError: If the settings have none, classifier, head and backbone do not go together, or the device
                does not have the precision.
        """
        classifier = self._build_classifier()
        if isinstance(classifier, FeatureRows):
            raise ConfigError(
                f"the classifier {type(classifier).__name__} stores features of a gallery network, and this mode has "
                "none; choose mode: semi_siamese or class_pool, or another classifier, such as FullSoftmax."
            )
        return classifier

    def build_feature_rows(self) -> FeatureRows:
        """The same for a mode with a gallery network, whose features it stores.

        Raises:
            ConfigError: As `build_classifier`, or if the settings' classifier stores no features.
        """
        classifier = self._build_classifier()
        if not isinstance(classifier, FeatureRows):
            raise ConfigError(
                f"this mode learns from stored features of a gallery network, and {type(classifier).__name__} stores "
                "none; set classifier: PrototypeQueue or ClassPool."
            )
        return classifier

    def _build_classifier(self) -> Classifier:
        if self.classifier is None or self.head is None:
            raise ConfigError(
                "this mode learns by class rows, and the settings say classifier: null; name one, such as "
                "classifier: FullSoftmax with head: ArcFace, or choose a mode that needs no class rows."
            )
        given: dict[str, Any] = {"num_classes": self.num_classes, "feat_dim": self.backbone.feat_dim}
        head = build(HEADS, self.head, **given)
        if head.uses_norm and self.backbone.unit_norm:
            raise ConfigError(
                f"the head {type(head).__name__} reads quality from the norm of an embedding, but the backbone "
                f"{type(self.backbone).__name__} gives embeddings of norm 1; choose another head or backbone."
            )
        classifier = build(CLASSIFIERS, self.classifier, head=head, seed=self.seed, **given)
        if self.sample_weight is not None:
            classifier.sample_weight = build(SAMPLE_WEIGHTS, self.sample_weight)
        device = next(self.backbone.parameters()).device
        check_class_precision(self.class_precision, device)
        classifier.class_precision, classifier.class_skip = self.class_precision, self.class_skip
        if self.class_compile:
            check_class_compile(device)
        classifier.class_compile = self.class_compile
        return classifier.to(device)


class TrainingMode(ABC):
    """A way of training: owns networks, class rows and loss. The loop sees only `step` and `after_update`.

    A mode is built by its registered name from `Supplies` and from its own options in the configuration. It names its
    networks and row owners; checkpoints hold what they need of them without knowing the mode. The least that a mode
    writes is `step`.

    Args:
        supplies: Their backbone is the network in training.

    Attributes:
        replica: The network in training as this process runs it: forward passes with gradients go through it.
        changes_network: Why the network in training is not the same function in each pass, so that it cannot be
            compiled; empty if it is.
        view: What ``Batch.reference`` shows of the images, for another network to see: nothing else than
            ``Batch.image`` (``same``), ``clean`` images, or ``stored`` ones.
        wants_occluded: Whether batches are to say where something hides the face, ``Batch.occluded``.
    """

    citation: ClassVar[Citation | None] = None
    changes_network: ClassVar[str] = ""
    view: View = "same"
    wants_occluded: bool = False

    def __init__(self, supplies: Supplies) -> None:
        # A loaded base comes in evaluation mode, without dropout, its BatchNorm still.
        self.replica = supplies.replicate(supplies.backbone.train())

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Whether its loss looks at the quality scores of a batch, through a gate or as they are.

        Scores and gates that neither mode nor network reads are refused, because scoring takes long.

        Args:
            options: The mode's own options in the configuration.
        """
        return True

    def host_work(self) -> str:
        """Why a step needs the host, so that no CUDA graph can repeat it; empty if all of it is the device's.

        It is the device's where it looks at no number, draws from the device's default generator alone, and changes
        what it remembers in place.
        """
        return f"nobody has said that of the mode {type(self).__name__}"

    @abstractmethod
    def step(self, batch: Batch) -> StepOutput:
        """Forward pass of one batch on the device."""

    @property
    def network(self) -> Backbone:
        """The network in training, for its properties."""
        return self.replica.network

    def require_whole(self, what: str) -> None:
        """Refuse what calls or copies the network beside its replica where no process has all of it.

        Raises:
            ConfigError: If so; ``what`` begins the sentence.
        """
        if not self.replica.whole:
            raise ConfigError(
                f"{what} needs the whole network on each process, and training.parallel=fsdp keeps a part of it there; "
                "set training.parallel=ddp."
            )

    def embed(self, batch: Batch) -> Tensor:
        """Embeddings (B, D) of a batch, with gradients; a network that takes quality scores gets those of the batch."""
        return self.replica(*self.inputs(batch))

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the network takes of a batch: normalised images, and quality scores if it takes those."""
        quality = (batch.quality,) if batch.quality is not None and self.network.needs_quality else ()
        return normalise(batch.image, self.network.input_spec), *quality

    def networks(self) -> Mapping[str, nn.Module]:
        """Every network by its name in checkpoints: ``network`` is the one in training; others, say, a ``teacher``."""
        return {"network": self.network}

    def row_owners(self) -> Mapping[str, Classifier]:
        """Owners of class rows by their names in checkpoints, which differ from those of the networks; often one.

        Each process holds its own range of rows, so they stay outside of replicas.
        """
        return {}

    def replicas(self) -> Iterable[Replica[Any]]:
        """The networks in training, as this process runs them: often one."""
        return [self.replica]

    def trained_modules(self) -> Iterable[nn.Module]:
        """Modules whose parameters are equal on all processes and are to be optimised; heads may learn some, too."""
        return [*(one.network for one in self.replicas()), *(owner.head for owner in self.row_owners().values())]

    def fresh_modules(self) -> Iterable[nn.Module]:
        """Those of `trained_modules` that begin anew beside a network that may be trained; by default none.

        They learn at ``optimizer.class_lr`` if there is one, as new class rows do.
        """
        return []

    def inference_network(self) -> Backbone:
        """The network that is evaluated and exported: of the structure of the one in training, whose card it gets."""
        return self.network

    def inference(self) -> Replica[Backbone]:
        """The network that is evaluated and exported, as this process runs it."""
        return self._replica_of(self.inference_network())

    def _replica_of(self, network: N) -> Replica[N]:
        """That of a network in training; others lie whole in each process."""
        return next((one for one in self.replicas() if one.network is network), Replica(network))

    def stored(self, name: str) -> Mapping[str, Tensor]:
        """What a checkpoint holds of one of `networks`; the rest is as the settings make it. All of it by default.

        Nothing means that the network is frozen and that its source stands in the settings: its hash is stored, and
        a run is not resumed on another one.
        """
        return self._replica_of(self.networks()[name]).state()

    def state(self) -> dict[str, Any]:
        """What resuming needs beside optimiser and class rows; equal on all processes."""
        networks = {name: self.stored(name) for name in self.networks()}
        frozen = {name: state_hash(self.networks()[name].state_dict()) for name, kept in networks.items() if not kept}
        heads = {name: _without_rows(owner) for name, owner in self.row_owners().items()}
        return {**{name: kept for name, kept in networks.items() if kept}, **heads, FROZEN: frozen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; class rows come on their own.

        Raises:
            CheckpointError: If it is that of other networks.
        """
        for name, network in self.networks().items():
            kept = self.stored(name)
            if not kept:
                _require_same(name, network, state.get(FROZEN, {}).get(name))
                continue
            replica = self._replica_of(network)
            own = replica.state()
            # What is not stored is as the settings have just built it.
            whole = {key: one for key, one in own.items() if key not in kept} | state.get(name, {})
            require_fit(own, whole, TRAINING)
            replica.load(whole)
        for name, owner in self.row_owners().items():
            whole = {**owner.row_tensors(), **state.get(name, {})}
            of = f"classifier {type(owner).__name__}"
            require_fit(owner.state_dict(), whole, TRAINING, of=of, remedy=OTHER_CLASSIFIER)
            owner.load_state_dict(whole)

    def local_state(self) -> dict[str, dict[str, Tensor]]:
        """Buffers of the networks by their names, such as BatchNorm statistics, which differ between processes."""
        return {name: dict(one.named_buffers()) for name, one in self.networks().items() if self.stored(name)}

    def load_local_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `local_state` gave.

        Raises:
            CheckpointError: If it is that of other networks.
        """
        own = self.local_state()
        if state and all(
            isinstance(one, Tensor) for one in state.values()
        ):  # up to 0.1: the buffers of the one in training
            own, state = {"network": own["network"]}, {"network": state}
        for name, buffers in own.items():
            require_fit(buffers, state.get(name, {}), "process-*.pt")
            for key, buffer in buffers.items():
                buffer.copy_(state[name][key])

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
        """Called once after each update of the optimiser: owners of class rows change what has no gradient."""
        for owner in self.row_owners().values():
            owner.after_update()

    @contextmanager
    def between_updates(self) -> Iterator[None]:
        """Context for a forward and backward pass whose gradients are only accumulated, so processes need not talk."""
        with ExitStack() as contexts:
            for replica in self.replicas():
                contexts.enter_context(replica.no_sync())
            yield


def check_parts(mode: TrainingMode) -> None:
    """Refuse a mode of which a checkpoint could not keep everything.

    Raises:
        ConfigError: If two of its networks and owners of class rows share a name, or an owner learns what is none of
            its rows.
    """
    networks, owners = mode.networks(), mode.row_owners()
    if shared := [name for name in owners if name in networks] + [
        name for name in (*networks, *owners) if name == FROZEN
    ]:
        raise ConfigError(
            f"the mode {type(mode).__name__} gives the name '{shared[0]}', which is taken: in checkpoints networks and "
            f"owners of class rows have different names, none of them '{FROZEN}'."
        )
    elsewhere = {parameter for module in mode.trained_modules() for parameter in module.parameters()}
    for owner in owners.values():
        rows = owner.row_tensors()
        for name, parameter in owner.named_parameters():
            if name not in rows and parameter.requires_grad and parameter not in elsewhere:
                raise ConfigError(
                    f"{type(owner).__name__} learns '{name}', which is none of its row_tensors: each process would "
                    "learn another one. What all classes share belongs to the head, or to a layer that is replicated."
                )


def _without_rows(owner: Classifier) -> dict[str, Tensor]:
    """What an owner of class rows remembers beside them, such as buffers of its head."""
    rows = owner.row_tensors()
    return {name: tensor for name, tensor in owner.state_dict().items() if name not in rows}


def _require_same(name: str, network: nn.Module, then: str | None) -> None:
    """Refuse a frozen network that is not the one of the checkpoint; versions up to 0.1 did not keep its hash."""
    if then not in (None, state_hash(network.state_dict())):
        raise CheckpointError(
            f"the frozen network '{name}' is another one than that of the checkpoint ({then}); bring that one back, or "
            "start a new run."
        )


MODES: Registry[TrainingMode] = Registry("mode", "facelab.training_mode", supplied=("supplies", "gate"))
