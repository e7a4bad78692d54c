"""What the doctor finds: kinds of errors, the images of each, and which of them to leave out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import ImageSet, Source
from facelab.quality.card import ScorerCard

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
NOBODY = -1


class Kind(NamedTuple):
    """A kind of error.

    Attributes:
        title: Heading.
        meaning: What it is, and what suspects are if not the images that are found.
        score: What the number beside an image is; empty without one.
        left_out: Whether its images are left out unless the user says otherwise.
    """

    title: str
    meaning: str
    score: str
    left_out: bool


KINDS: dict[str, Kind] = {
    "unreadable": Kind("Unreadable", "The file is damaged, missing or no image.", "", True),
    "size": Kind(
        "Another size",
        "Most images have one size, these another: they were cut out or aligned in another way.",
        "",
        True,
    ),
    "colour": Kind(
        "Red and blue swapped",
        "The middle of the face is more blue than red, as skin is under no usual light: the image was stored as BGR.",
        "warmth",
        True,
    ),
    "alignment": Kind(
        "Misaligned", "Landmarks that were found again lie elsewhere than in most images.", "pixels of 112", True
    ),
    "no face": Kind(
        "No face found", "The detector finds no face in the crop. Faces in full profile are among them.", "", False
    ),
    "quality": Kind(
        "Low quality",
        "The score is more than three median deviations below the median. That is a matter of taste, not an error.",
        "score",
        False,
    ),
    "duplicate": Kind(
        "Duplicates",
        "One person has the same picture twice, perhaps compressed, resized, brightened or mirrored. The better copy, "
        "shown beside, is no suspect.",
        "likeness",
        True,
    ),
    "duplicate elsewhere": Kind(
        "Duplicates under another label",
        "Two people have the same picture. One copy is left out if the model finds the other one, shown beside, like "
        "the images of its label; else both are.",
        "likeness",
        True,
    ),
    "wrong label": Kind(
        "Wrong label",
        "The image is unlike the other images of its label, and like those of another one, shown beside.",
        "nearer by",
        True,
    ),
    "several people": Kind(
        "Several people under one label",
        "The images of the label form groups that are unlike each other. One of the largest group, which is never left "
        "out, is shown beside.",
        "cosine of groups",
        True,
    ),
    "two labels": Kind(
        "One person under two labels",
        "The images of two labels are as alike as those of one. Suspects are those of the smaller label; joining the "
        "two by hand keeps them.",
        "cosine of labels",
        True,
    ),
    "outlier": Kind(
        "Outliers",
        "The image is unlike the other images of its label, one of which is shown beside, and like no other label: a "
        "stranger, no face, or a picture that is spoilt.",
        "cosine to label",
        True,
    ),
    "unlike pair": Kind(
        "Two images that are unlike",
        "A label has two images, and they are unlike: one is wrong, or both are hard. From two, nobody can tell.",
        "cosine",
        False,
    ),
    "overlap": Kind(
        "People of a test set",
        "The images of the label are like an image of a test set, shown beside. Suspects are all images of the label.",
        "cosine",
        True,
    ),
    "single": Kind(
        "Labels of one image", "There is nothing to compare them with, so no label error can be seen.", "", False
    ),
}
"""All kinds, in the order of the report."""


@dataclass(frozen=True)
class Finding:
    """The images of one kind of error, worst first.

    Attributes:
        kind: A key of `KINDS`.
        rows: The images, (M,).
        beside: An image to compare each with, (M,); `NOBODY` where there is none.
        score: A number for each, (M,), as `Kind.score` says; NaN where there is none.
        suspects: What is left out where the kind is, ascending; often ``rows``, or all images of their labels.
        reasons: A sentence for each, or none.
        beside_in: The set that ``beside`` is of, if it is another one, and its name.
        note: A sentence on this finding as a whole.
    """

    kind: str
    rows: Rows
    beside: Rows
    score: Floats
    suspects: Rows
    reasons: tuple[str, ...] = ()
    beside_in: tuple[str, ImageSet] | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        kind: str,
        rows: Rows,
        beside: Rows | None = None,
        score: NDArray[np.floating] | None = None,
        suspects: Rows | None = None,
        *,
        ascending: bool = True,
        note: str = "",
        beside_in: tuple[str, ImageSet] | None = None,
    ) -> "Finding":
        """A finding whose images are put in the order of their scores.

        Args:
            kind: A key of `KINDS`.
            rows: The images, (M,).
            beside: What to compare with, (M,).
            score: (M,).
            suspects: What to leave out; ``rows`` by default.
            ascending: Whether a low score is worse.
            note: On the finding as a whole.
            beside_in: See the class.
        """
        beside = np.full(len(rows), NOBODY, np.int64) if beside is None else beside
        values = np.full(len(rows), np.nan, np.float32) if score is None else score.astype(np.float32)
        order = np.argsort(values if ascending else -values, kind="stable")
        suspects = np.unique(rows if suspects is None else suspects)
        return cls(kind, rows[order], beside[order], values[order], suspects, (), beside_in, note)


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a set.

    Attributes:
        source: The set.
        findings: One for each kind that was looked for, in the order of `KINDS`, empty ones too; ``overlap`` may occur
            for several test sets.
        facts: What a reader wants to know of the set, by name.
        notes: What was left out, and why.
        quality: Score of each image, (N,), NaN where it could not be read; None without a scorer.
        scorer: Who scored.
    """

    source: Source
    findings: tuple[Finding, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quality: Floats | None = None
    scorer: ScorerCard | None = None

    def kept(self, kinds: frozenset[str]) -> NDArray[np.bool_]:
        """Which images stay where some kinds are left out, (N,)."""
        stays = np.ones(len(self.source), bool)
        for finding in self.findings:
            if finding.kind in kinds:
                stays[finding.suspects] = False
        return stays
