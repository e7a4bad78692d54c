"""The contract of every protocol, and the report that it fills."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from facelab.citation import Citation
from facelab.data.base import ImageSet
from facelab.errors import ConfigError
from facelab.quality.card import ScorerCard
from facelab.registry import Registry

FloatArray = NDArray[np.float32]
Better = Literal["high", "low"]


@dataclass(frozen=True)
class Metric:
    """One number of a report.

    Attributes:
        name: For example ``accuracy`` or ``TAR@FAR=1e-3``.
        value: As a fraction (0.9945, not 99.45) unless ``unit`` says otherwise; None if it cannot be measured on this
            data (``note`` says why).
        spread: Standard error or deviation, in the same unit; ``note`` says which.
        unit: ``fraction`` is printed in percent, ``score`` and ``count`` as they are.
        kind: ``correct`` by a clean definition, or ``reference`` as a published evaluator computes it, with its quirks.
        note: One clause for the reader.
        interval: Bootstrap confidence interval (low, high) in the same unit, or None.
        better: Which values are better; None where neither is (counts, thresholds) or nobody said: tables then call
            no model the best.
    """

    name: str
    value: float | None
    spread: float | None = None
    unit: Literal["fraction", "score", "count"] = "fraction"
    kind: Literal["correct", "reference"] = "correct"
    note: str = ""
    interval: tuple[float, float] | None = None
    better: Better | None = None


@dataclass(frozen=True)
class Picture:
    """A small copy of an image of a mistake, so that a report shows it where the data is not.

    Attributes:
        name: Where the image lies, as its `ImageSet` says.
        jpeg: The small copy; empty if the image could not be read again.
        quality: Its quality score, or None without a scorer.
    """

    name: str
    jpeg: bytes
    quality: float | None = None


@dataclass(frozen=True)
class Mistake:
    """One of the hardest errors of a protocol: what to look at first.

    Attributes:
        kind: ``false match`` (two people, and yet alike) or ``false non-match`` (one person, and yet unlike).
        left: Row of one image (for a template: its best image) in the protocol's images.
        right: Row of the other image.
        score: Their similarity.
        pictures: Small copies of both images, which `run_protocols` adds; None before.
    """

    kind: Literal["false match", "false non-match"]
    left: int
    right: int
    score: float
    pictures: tuple[Picture, Picture] | None = None


@dataclass(frozen=True)
class Report:
    """What one protocol says of one model.

    Attributes:
        protocol: Name of the protocol or of the data set, as shown in tables.
        metrics: The numbers; the first one is the headline that comparison tables show.
        options: Everything that would change the numbers: flip, thresholds, hashes, precision …; JSON types only.
        curves: Small arrays by name for plots: ``far`` and ``tar`` (ROC, DET), ``score_edges``, ``same_count`` and
            ``different_count`` (histogram), ``rank`` and ``rank_rate`` (CMC), ``reject`` and ``fnmr`` (error versus
            reject).
        trials: What statistics need of every trial, as arrays of one length. Verification: ``score`` float32,
            ``same`` bool, ``left`` and ``right`` int32 (numbers of the people, -1 where unknown). Identification:
            ``person`` int32 (of the probe), ``rank`` int32 (1 for a hit at once, 0 for a probe without a mate), and
            for the open set ``score`` float32 (of the probe's best entry).
            ``score@16px`` are the scores of the same trials that ``accuracy@16px`` is measured on.
            Two models can be compared trial by trial where their trials come from the same lists.
        mistakes: The hardest errors, worst first within each kind.
    """

    protocol: str
    metrics: tuple[Metric, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    trials: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    @property
    def headline(self) -> Metric:
        """The metric that stands for the report in a comparison table."""
        return self.metrics[0]


@dataclass(frozen=True)
class Embeddings:
    """Raw (not normalised) embeddings of an `ImageSet`, row by row.

    Attributes:
        values: float32, (N, D).
        flipped: The same of the mirrored images, (N, D), or None if they were not computed.
        quality_scores: Quality score of each image, (N,), higher or lower is better as ``scorer`` declares; NaN for an
            image that could not be read; None without a table.
        skipped: Images that protocols must leave out because they could not be read, bool, (N,); their rows are zero.
            None if there are none.
        scorer: Who made ``quality_scores``.
        failed: Row and reason of every image that could not be read, in order, whether skipped or left as zeros.
    """

    values: FloatArray
    flipped: FloatArray | None = None
    quality_scores: FloatArray | None = None
    skipped: NDArray[np.bool_] | None = None
    scorer: ScorerCard | None = None
    failed: tuple[tuple[int, str], ...] = ()

    @property
    def quality(self) -> FloatArray | None:
        """The quality of each image, higher is better whatever the scorer's direction, (N,); None without scores."""
        if self.quality_scores is None or self.scorer is None:
            return self.quality_scores
        return self.scorer.quality(self.quality_scores)

    def part(self, rows: slice | NDArray[np.int64]) -> "Embeddings":
        """The embeddings of some images.

        Args:
            rows: Their numbers, or a slice with start and stop, which copies nothing.
        """
        numbers = range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()
        places = {row: place for place, row in enumerate(numbers)} if self.failed else {}
        return Embeddings(
            self.values[rows],
            None if self.flipped is None else self.flipped[rows],
            None if self.quality_scores is None else self.quality_scores[rows],
            None if self.skipped is None else self.skipped[rows],
            self.scorer,
            tuple((places[row], reason) for row, reason in self.failed if row in places),
        )


class Protocol(ABC):
    """A benchmark: names its images, and turns their embeddings into a `Report`. It never sees a model.

    The constructor's signature is the YAML schema; data paths come from there. The file checks happen at construction.

    Attributes:
        images: What has to be embedded.
        flip: Whether mirrored images are wanted too.
        crops: Whether the images are what a detector cut out, of any shape: they are resized where the user allows
            that at all, without being told that any photo will do.
    """

    citation: ClassVar[Citation | None] = None
    images: ImageSet
    flip: bool = False
    crops: bool = False

    @abstractmethod
    def evaluate(self, embeddings: Embeddings) -> Report:
        """The report on ``embeddings`` of `images`.

        Raises:
            DataError: If the embeddings do not fit the protocol: other count, values that are not finite.
        """

    def with_probes_of(self, images: ImageSet) -> "Protocol":
        """The same trials on twice as many images: those of probes, and the second ones of pairs, in another form.

        Args:
            images: This protocol's images, and then, in the same order, all of them in the other form.

        Raises:
            ConfigError: If probes are not told apart from the gallery.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot have probes alone changed, as it does not tell them apart from the gallery; "
            "leave side out, or set side: both."
        )


PROTOCOLS: Registry[Protocol] = Registry("protocol", "facelab.test_protocol", supplied=("progress",))
