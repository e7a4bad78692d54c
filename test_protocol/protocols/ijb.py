"""IJB-B and IJB-C: verification of template pairs, and search of mixed probes in two galleries."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from facelab.citation import Citation
from facelab.data.alignment.alignment import TemplateForm
from facelab.data.base import ImageSet
from facelab.data.formats.alignment_record import AlignmentRecord
from facelab.data.formats.images import PathImages
from facelab.data.sources.aligned_images import AlignedImages
from facelab.errors import in_range, one_of
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.lists.ijb_files import (
    TemplateImages,
    read_identification,
    read_template_images,
    read_template_pairs,
)
from facelab.test_protocol.lists.integer_lines import line_of_row
from facelab.test_protocol.metrics.identification import check_ranks
from facelab.test_protocol.metrics.pair_scores import check_embeddings
from facelab.test_protocol.metrics.templates import FeatureRules, Weighting, join_templates
from facelab.test_protocol.protocols.ijb_search import (
    GallerySearches,
    evals_metrics,
    merged_metrics,
    search_curves,
    search_metrics,
)
from facelab.test_protocol.protocols.ijb_verification import (
    ScoredTemplatePairs,
    mistakes,
    nearest_metrics,
    people_of_templates,
    trials,
    verification_metrics,
)
from facelab.test_protocol.protocols.verification import score_curves

Rules = Literal["exact", "insightface", "insightface_evals", "adaface", "facexzoo"]
DEFAULT_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Evaluator:
    """A published evaluator.

    Attributes:
        name: In tables.
        features: Its own features: norm kept, detector score, flip.
        search: How it counts 1:N; None if it has none.
    """

    name: str
    features: tuple[bool, bool, bool] = (True, True, True)
    search: Literal["merged", "evals"] | None = None


# In InsightFace's letters: N1 D1 F1 (which its newer script calls N0 D1 F1), AdaFace N1 D0 F1, FaceX-Zoo N0 D1 F0.
EVALUATORS: dict[Rules, Evaluator] = {
    "exact": Evaluator(""),
    "insightface": Evaluator("InsightFace", search="merged"),
    "insightface_evals": Evaluator("InsightFace evals", search="evals"),
    "adaface": Evaluator("AdaFace", (True, False, True), "merged"),
    "facexzoo": Evaluator("FaceX-Zoo", (False, True, False)),
}


class IJB(Protocol):
    """IJB-B or IJB-C from the files that InsightFace distributes: 1:1, and 1:N if its three lists are there.

    Args:
        root: Folder with ``meta`` and ``loose_crop``.
        images: Folder or ``.tar`` of the images, if it is not ``loose_crop``.
        aligned: Whether the images are aligned already; otherwise they are aligned while they are
            read, by the five points of ``*_name_5pts_score.txt``.
        size: Side of the aligned images, in pixels.
        form: See `facelab.data.alignment.alignment.template`.
        rules: ``exact``, or ``insightface``, ``insightface_evals``, ``adaface`` or ``facexzoo`` to have that
            evaluator's numbers first. Each has its own defaults for the next three: InsightFace keeps norms, and uses
            detector scores and mirrored images; AdaFace uses no detector scores, FaceX-Zoo neither norms nor mirrored
            images. ``exact`` takes InsightFace's.
        norm_score: Whether embeddings keep their norm, which then weighs an image within its template. (InsightFace's
            newer script has it the other way round: its N1 is ``norm_score: false``.)
        detector_score: Whether an image is weighed by the detector's score.
        flip: Whether the embeddings of an image and of its mirror image are added.
        weighting: One more weight of an image: ``none``, ``norm`` or ``quality``.
        fars: False accept rates of 1:1.
        ranks: Ranks of 1:N.
        fpirs: False positive identification rates of 1:N.
        name: Name in tables.

    Raises:
        ConfigError: If a name is unknown, or a rank or rate is out of range.
        DataError: If a file or image is missing, or a line is wrong; the message names file and line.
    """

    prefix: ClassVar[str]

    def __init__(
        self,
        root: Path,
        images: Path | None = None,
        aligned: bool = False,
        size: int = 112,
        form: TemplateForm = "scaled",
        rules: Rules = "exact",
        norm_score: bool | None = None,
        detector_score: bool | None = None,
        flip: bool | None = None,
        weighting: Weighting = "none",
        fars: tuple[float, ...] = DEFAULT_FARS,
        ranks: tuple[int, ...] = (1, 5, 10),
        fpirs: tuple[float, ...] = (0.01, 0.1),
        name: str = "",
    ) -> None:
        one_of("rules", rules, list(EVALUATORS))
        self.rules, self.evaluator, self.name = rules, EVALUATORS[rules], name or type(self).__name__
        given = zip((norm_score, detector_score, flip), self.evaluator.features, strict=True)
        norm, detector, mirrored = (own if value is None else value for value, own in given)
        self.features = FeatureRules(norm, detector, mirrored, weighting)
        self.flip = self.features.flip
        self.fars, self.fpirs = (
            tuple(in_range(f"a rate of {what}", rate, 0.0, 1.0, low_open=True) for rate in rates)
            for what, rates in (("fars", fars), ("fpirs", fpirs))
        )
        self.ranks = check_ranks(ranks)
        meta = Path(root) / "meta"
        self.listed = read_template_images(meta, self.prefix)
        self.pairs = read_template_pairs(meta, self.prefix, self.listed)
        self.lists = read_identification(meta, self.prefix, self.listed)
        self.people = people_of_templates(len(self.listed.template_ids), self.pairs, self.lists)
        self.images = _images(images or Path(root) / "loose_crop", self.listed, None if aligned else (size, form))

    def evaluate(self, embeddings: Embeddings) -> Report:
        """TAR at the rates, AUC and EER of the template pairs; ranks and TPIR of both galleries and their mean."""
        check_embeddings(embeddings, self.images)
        templates = join_templates(embeddings, self.listed.grouping, self.features, self.listed.detector_score)
        scored = ScoredTemplatePairs.of(templates, self.pairs)
        searches = None if self.lists is None else GallerySearches.of(templates, self.lists)
        template = self.listed.grouping.template
        shown = template if embeddings.skipped is None else np.where(embeddings.skipped, -1, template)
        return Report(
            self.name,
            (*self._reference(scored, searches), *self._correct(scored, searches)),
            {**self.options(), **_left_out(embeddings, int(templates.empty.sum()), scored, searches)},
            {
                **score_curves(scored.score, scored.pairs.same, None if scored.one_class else scored.roc),
                **({} if searches is None else search_curves(searches)),
            },
            trials(scored, self.people),
            mistakes(scored, shown, self.listed.detector_score),
        )

    def _reference(self, scored: ScoredTemplatePairs, searches: GallerySearches | None) -> Iterator[Metric]:
        project = self.evaluator.name
        if not project:
            return
        yield from nearest_metrics(scored, self.fars, project)
        if searches is not None and self.evaluator.search == "merged":
            yield from merged_metrics(searches, self.ranks, self.fpirs, project)
        if searches is not None and self.evaluator.search == "evals":
            yield from evals_metrics(searches, self.ranks, self.fpirs, project)

    def _correct(self, scored: ScoredTemplatePairs, searches: GallerySearches | None) -> Iterator[Metric]:
        yield from verification_metrics(scored, self.fars)
        if searches is not None:
            yield from search_metrics(searches, self.ranks, self.fpirs)

    def options(self) -> dict[str, Any]:
        """What the numbers depend on, for the report."""
        return {
            "rules": self.rules,
            **self.features.options(),
            "fars": list(self.fars),
            "ranks": list(self.ranks),
            "fpirs": list(self.fpirs),
            "templates": len(self.listed.template_ids),
            "pairs": len(self.pairs.same),
            "identification": self.lists is not None,
        }


def _images(root: Path, listed: TemplateImages, alignment: tuple[int, TemplateForm] | None) -> ImageSet:
    images = PathImages(root, listed.names, lambda row: f"{listed.path}:{line_of_row(listed.path, row)}")
    if alignment is None:
        return images
    size, form = alignment
    record = AlignmentRecord.of(size, form, listed.points_path)
    return AlignedImages(images, listed.points, size, form, record.describe())


def _left_out(
    embeddings: Embeddings, empty: int, scored: ScoredTemplatePairs, searches: GallerySearches | None
) -> dict[str, int]:
    if embeddings.skipped is None or not embeddings.skipped.any():
        return {}
    return {
        "skipped_images": int(embeddings.skipped.sum()),
        "empty_templates": empty,
        "skipped_pairs": scored.left_out,
        "skipped_searches": 0 if searches is None else searches.left_out,
    }


@PROTOCOLS.register("IJBB")
class IJBB(IJB):
    """IJB-B; options as `IJB`."""

    prefix = "ijbb"
    citation: ClassVar[Citation | None] = Citation(
        key="whitelam2017ijbb",
        title="IARPA Janus Benchmark-B Face Dataset",
        authors="Whitelam, Cameron and Taborsky, Emma and Blanton, Austin and Maze, Brianna and others",
        venue="CVPR Workshops",
        year=2017,
    )


@PROTOCOLS.register("IJBC")
class IJBC(IJB):
    """IJB-C; options as `IJB`."""

    prefix = "ijbc"
    citation: ClassVar[Citation | None] = Citation(
        key="maze2018ijbc",
        title="IARPA Janus Benchmark - C: Face Dataset and Protocol",
        authors="Maze, Brianna and Adams, Jocelyn and Duncan, James A. and Kalka, Nathan and others",
        venue="International Conference on Biometrics",
        year=2018,
    )
