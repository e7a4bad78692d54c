"""Sub-center ArcFace: each class has several centres, and a face belongs to the nearest."""

from typing import ClassVar

from facelab.citation import Citation
from facelab.head.base import CLASSIFIERS, MarginHead
from facelab.head.class_rows import Initial
from facelab.head.classifier import FullSoftmax


@CLASSIFIERS.register("SubCenter")
class SubCenter(FullSoftmax):
    """Class rows of sub-center ArcFace (Deng et al., ECCV 2020, Eq. 2), for any head of cosines.

    With K centres ``w_jk`` of class j, the angle to a class is that to its nearest centre,
    ``theta_j = arccos(max over k of <w_jk, x> / (||w_jk|| ||x||))``, and the head's margin is put on that: with ArcFace
    the logit of the own class is ``s cos(theta_y + m)``. Most images of a person gather at one centre, and wrongly
    labelled ones at others. It is `FullSoftmax` with K = 3, which the paper finds best, instead of 1.

    Args:
        num_classes: C, over all processes; at least 2, and no fewer than processes.
        feat_dim: D, the length of an embedding.
        head: Gives the logits; a head of cosines, ArcFace in the paper.
        seed: The rows at start; the same for any number of processes.
        initial: As in `FullSoftmax`.
        deviation: As in `FullSoftmax`.
        rows_per_class: K, at least 1.

    Raises:
        ConfigError: If an argument is out of range, or the head takes inner products.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="deng2020subcenter",
        title="Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
        authors="Deng, Jiankang and Guo, Jia and Liu, Tongliang and Gong, Mingming and Zafeiriou, Stefanos",
        venue="ECCV",
        year=2020,
    )

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        initial: Initial = "unit",
        deviation: float = 0.01,
        rows_per_class: int = 3,
    ) -> None:
        super().__init__(num_classes, feat_dim, head, seed, initial, deviation, rows_per_class)
