"""Distillation: a student learns what a frozen teacher makes of its images."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.citation import Citation
from facelab.data.base import Batch
from facelab.data.transforms.augment import View
from facelab.engine.loop import StepOutput
from facelab.engine.replica import Replica
from facelab.errors import ConfigError, in_range
from facelab.head.candidates import cosines
from facelab.head.classifier import Classifier
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.inputs import normalise
from facelab.training_mode.base import MODES, Supplies, TrainingMode
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Need, Outputs
from facelab.training_mode.distillation.losses.soft_target import SoftTarget
from facelab.training_mode.distillation.teacher import Teacher, outputs_of, shapes_of
from facelab.training_mode.weighted import weighted


@MODES.register("distillation")
class Distillation(TrainingMode):
    """Losses against a frozen teacher, beside the classification loss of the settings or, with no classifier, alone.

    The teacher is a run, a model, or a backbone with weights, of any architecture and input. With ``view: clean`` it
    sees an image without the random changes that harm its quality, so that a student of low-resolution images learns
    what the teacher sees in the sharp ones. With ``view: stored`` it sees it without any: then its embeddings are
    always the same, and with ``cache`` they are computed once and kept on disk.

    Args:
        supplies: The student, and the settings' classifier if there is one.
        teacher: Folder of a run or a model, a file of a model, or a backbone with ``weights``, as
            ``{EdgeFace-XXS: {weights: FILE}}``.
        losses: Weights of losses by name, see `DISTILLATIONS`.
        classification: Weight of the classification loss, from 0.
        view: What the teacher sees: the ``same`` pixels as the student, ``clean`` ones, or those that are ``stored``.
        cache: Folder that keeps the teacher's embeddings of the training images, or None.

    Raises:
        ConfigError: If losses, networks and classifier do not go together.
    """

    citation: ClassVar[Citation | None] = SoftTarget.citation

    def __init__(
        self,
        supplies: Supplies,
        teacher: Path | dict[str, dict[str, Any] | None],
        losses: dict[str, float | dict[str, Any] | None] | None = None,
        classification: float = 1.0,
        view: View = "same",
        cache: Path | None = None,
    ) -> None:
        super().__init__(supplies)
        self.view = view
        self.classification = in_range("distillation classification", classification, 0.0, math.inf, high_open=True)
        self.classifier = None if supplies.classifier is None else supplies.build_classifier()
        options = weighted("distillation", DISTILLATIONS, {"Angular": 7.0} if losses is None else losses)
        _check(options, self.classifier, classification)
        if cache is not None:
            _check_cache(options, view)
        self.needs = frozenset(need for name in options for need in DISTILLATIONS.get(name).needs)
        self.teacher = Teacher(supplies.load(teacher), str(teacher))
        self.rows = supplies.load_rows(teacher) if self.needs & {"logits", "rows"} else None
        self.weights = {name: weight for name, (weight, _) in options.items()}
        self.losses = self._build(supplies, {name: own for name, (_, own) in options.items()})
        self.table = None if cache is None else torch.from_numpy(supplies.embed_source(self.teacher.network, cache))

    def _build(self, supplies: Supplies, options: Mapping[str, dict[str, Any]]) -> dict[str, Replica[DistillationLoss]]:
        """The losses on the device, as this process trains what they learn."""
        maps = "maps" in self.needs
        with self.replica.inference_view() as student:
            shapes = shapes_of(student, maps=maps)
        supplied: dict[str, Any] = {
            "student": shapes,
            "teacher": shapes_of(self.teacher.network, maps=maps),
            "rows": self.rows,
            "num_classes": supplies.num_classes,
        }
        device = next(supplies.backbone.parameters()).device
        built = {name: DISTILLATIONS.build(name, own, **supplied).to(device) for name, own in options.items()}
        return {name: supplies.replicate(loss) for name, loss in built.items()}

    @classmethod
    def reads_scores(cls, options: Mapping[str, Any]) -> bool:
        """Its losses look at no scores; a student that takes them gets them."""
        return False

    def host_work(self) -> str:
        """The teacher's embeddings, where they were kept."""
        return "" if self.table is None else "the teacher's kept embeddings lie there"

    def step(self, batch: Batch) -> StepOutput:
        """Loss and metrics of one batch; the metrics have each loss under its name, without its weight."""
        student, teacher = self._student(batch), self._teacher(batch)
        metrics: dict[str, Tensor] = {}
        loss = student.embedding.new_zeros(())
        # In fp32: the cosines that are compared here are near 1, where bf16 has steps of 0.004.
        with torch.autocast(batch.image.device.type, enabled=False):
            if self.classifier is not None and self.classification:
                output = self.classifier(student.embedding, batch.label)
                loss, metrics = self.classification * output.loss, dict(output.metrics)
            student, teacher = self._with_logits(student, teacher)
            for name, compare in self.losses.items():
                apart = compare(student, teacher, batch.label)
                loss, metrics[name] = loss + self.weights[name] * apart, apart.detach()
        return StepOutput(loss, metrics)

    def networks(self) -> Mapping[str, nn.Module]:
        """The student, the teacher, and losses that learn something."""
        learning = {name: one.network for name, one in self.losses.items() if _learns(one.network)}
        return {**super().networks(), "teacher": self.teacher.network, **learning}

    def stored(self, name: str) -> Mapping[str, Tensor]:
        """Nothing of the teacher, whose place stands in the settings."""
        return {} if name == "teacher" else super().stored(name)

    def replicas(self) -> Iterable[Replica[Any]]:
        """The student, and losses that learn something."""
        return [*super().replicas(), *(one for one in self.losses.values() if _learns(one.network))]

    def row_owners(self) -> Mapping[str, Classifier]:
        """That of the settings, if there is one."""
        return {} if self.classifier is None else {"classifier": self.classifier}

    def _student(self, batch: Batch) -> Outputs:
        quality = (batch.quality,) if batch.quality is not None and self.network.needs_quality else ()
        image = normalise(batch.image, self.network.input_spec)
        if "maps" in self.needs:
            return outputs_of(self.replica.features(image, *quality))
        return Outputs(self.replica(image, *quality).float())

    def _teacher(self, batch: Batch) -> Outputs:
        if self.table is not None:
            found, device = self.table[batch.index], batch.image.device
            # Pinned, because a copy from other memory would wait for the device.
            return Outputs((found.pin_memory() if device.type == "cuda" else found).to(device, non_blocking=True))
        seen = batch.image if batch.reference is None else batch.reference
        return self.teacher(seen, maps="maps" in self.needs)

    def _with_logits(self, student: Outputs, teacher: Outputs) -> tuple[Outputs, Outputs]:
        """The same with scaled cosines of the global batch to the classes of this process, if a loss needs them."""
        if "logits" not in self.needs:
            return student, teacher
        assert isinstance(self.classifier, FullSoftmax), "refused at the start"
        assert self.rows is not None
        scale = self.classifier.head.scale
        features = distributed.gather_rows(student.embedding), distributed.gather_labels(teacher.embedding)
        own, other = (
            scale * cosines(one, rows) for one, rows in zip(features, (self.classifier.weight, self.rows), strict=True)
        )
        return replace(student, logits=own), replace(teacher, logits=other)


def _learns(loss: nn.Module) -> bool:
    """Whether a loss has parameters of its own, such as a map from the student's channels to the teacher's."""
    return any(True for _ in loss.parameters())


def _needing(names: Iterable[str], need: Need) -> list[str]:
    """Which losses need something."""
    return [name for name in names if need in DISTILLATIONS.get(name).needs]


def _check(options: Mapping[str, Any], classifier: Classifier | None, weight: float) -> None:
    """Refuse losses that have nothing to compare, or leave a part of the student untrained.

    Raises:
        ConfigError: If so; says what would work.
    """
    classified = classifier is not None and weight > 0
    if not options and not classified:
        raise ConfigError("distillation has no loss; name one, for example losses: {Angular: 7}.")
    if options and not classified and len(_needing(options, "maps")) == len(options):
        raise ConfigError(
            f"{', '.join(options)} see feature maps alone, so the student's embedding would not learn; add a loss of "
            "embeddings, such as Angular, or a classifier."
        )
    for name in _needing(options, "logits"):
        # Exactly this one: subclasses leave rows out of a step.
        if type(classifier) is not FullSoftmax or not classifier.head.normalised:
            owner = "null" if classifier is None else type(classifier).__name__
            raise ConfigError(
                f"{name} compares cosines to all classes, so it needs classifier: FullSoftmax with a head of cosines, "
                f"but the classifier is {owner}; change it, or take MarginDistillation or Angular."
            )


def _check_cache(options: Mapping[str, Any], view: View) -> None:
    """Refuse to keep what is new in each step, or what is not kept.

    Raises:
        ConfigError: If so; says what would work.
    """
    if view != "stored":
        raise ConfigError(
            f"distillation cache keeps one embedding of each image, but with view: {view} the teacher sees each image "
            "as it was changed in this step; set view: stored, or leave the cache out."
        )
    if maps := _needing(options, "maps"):
        raise ConfigError(
            f"distillation cache keeps embeddings, but {maps[0]} compares feature maps; leave one of them out."
        )
