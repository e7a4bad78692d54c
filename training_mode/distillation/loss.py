"""The contract of losses between a student and its teacher, and their registry."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from facelab import distributed
from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.registry import Registry

Need = Literal["maps", "logits", "rows"]


@dataclass(frozen=True)
class Outputs:
    """What a network makes of this process's part of a batch, in fp32.

    Attributes:
        embedding: (B, D).
        maps: Feature maps (B, C, H, W), coarser and coarser, where a loss needs them.
        logits: Scaled cosines of the *global* batch to the classes that this process owns, (world * B, C_own), where a
            loss needs them.
    """

    embedding: Tensor
    maps: tuple[Tensor, ...] = ()
    logits: Tensor | None = None


@dataclass(frozen=True)
class Shapes:
    """Shapes of what a network gives, without the batch.

    Attributes:
        embedding: D.
        maps: (C, H, W) of each feature map; empty where no loss needs them.
    """

    embedding: int
    maps: tuple[tuple[int, int, int], ...] = ()


class DistillationLoss(nn.Module, ABC):
    """How far a student is from its teacher.

    The constructor's signature is the YAML schema; ``student`` and ``teacher`` (their `Shapes`), ``rows`` (the
    teacher's class rows that this process owns, (C_own, D)) and ``num_classes`` are supplied by the program. What a
    loss learns itself, such as a map from the student's channels to the teacher's, is trained beside the student and
    left out of the exported network.

    With several processes the loss that counts is the mean over them. A loss that compares images with each other
    takes those of all processes from `gathered`.

    Attributes:
        needs: What it reads beside embeddings: ``maps`` of both networks, ``logits`` of both, the teacher's ``rows``.
    """

    citation: ClassVar[Citation | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """The loss of a batch, ().

        Args:
            student: With gradients.
            teacher: Without.
            label: Class of each image, int64, (B,).
        """


def gathered(embedding: Tensor) -> Tensor:
    """Embeddings of all processes, (B, D) -> (world * B, D), for a loss whose mean over processes counts."""
    return distributed.use_commonly(distributed.gather_rows(embedding))


def projection(loss: str, wanted: bool, student: int, teacher: int) -> nn.Module:
    """A learned linear map from the student's embedding to the length of the teacher's, or nothing.

    Raises:
        ConfigError: If the lengths differ and none is wanted.
    """
    if wanted:
        return nn.Linear(student, teacher, bias=False)
    if student != teacher:
        raise ConfigError(
            f"{loss} compares embeddings number by number, but the student's have {student} numbers and the teacher's "
            f"{teacher}; set backbone feat_dim: {teacher}, or {loss} projection: true for a learned map between them, "
            "or take a loss that compares images with each other: PKT, RKD."
        )
    return nn.Identity()


def unit(embedding: Tensor) -> Tensor:
    """Embeddings of norm 1, (B, D)."""
    return F.normalize(embedding, dim=1)


def require_logits(outputs: Outputs) -> Tensor:
    """The logits that a loss with ``needs = {"logits"}`` is given."""
    assert outputs.logits is not None, "the mode computes what a loss says that it needs"
    return outputs.logits


DISTILLATIONS: Registry[DistillationLoss] = Registry(
    "distillation",
    "facelab.training_mode.distillation.losses",
    supplied=("student", "teacher", "rows", "num_classes"),
)
