"""Identification on own data: a gallery and probes, closed set, open set and verification."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np

from facelab.data.base import ImageSet
from facelab.data.formats.images import PathImages
from facelab.errors import DataError, in_range, one_of
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.lists.template_list import TemplateList, read_template_list
from facelab.test_protocol.metrics.fusion import JOININGS, Joining, readable
from facelab.test_protocol.metrics.identification import Ranking, check_ranks, open_set, rank_mates
from facelab.test_protocol.metrics.metrics import Booleans, Integers
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.metrics.score_tiles import Matrix, Tile
from facelab.test_protocol.metrics.strongest import HighestScores, scores_needed, tar_from_highest
from facelab.test_protocol.metrics.template_means import template_means
from facelab.test_protocol.metrics.templates import WEIGHTINGS, Weighting
from facelab.test_protocol.protocols.identification_report import (
    cmc_curves,
    count_metrics,
    hardest,
    open_set_metrics,
    rank_metrics,
    rank_trials,
)
from facelab.test_protocol.protocols.verification import far_metric

CURVE_RANKS = 100


@PROTOCOLS.register("GalleryProbe")
class GalleryProbe(Protocol):
    """Identification and verification on any gallery and probes, such as a restricted set like BRIAR.

    Closed set: rank-k of the probes whose person is in the gallery. Open set: the other probes are the non-mated ones;
    TPIR is the share of mated probes whose mate is first and reaches the threshold. Verification: every probe against
    every gallery entry.

    Args:
        root: Aligned images, in a folder or an archive.
        gallery: A text file with a line ``path person`` or ``path person template`` for each image, separated by tabs,
            commas or blanks; images of one template are compared as one.
        probe: The same for the probes.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How: ``sum`` as they are, ``normalised_sum`` or ``concat``.
        weighting: Weight of an image in its template: ``none``, ``norm`` (of its embedding) or ``quality``.
        ranks: Which ranks to report.
        fpirs: False positive identification rates of the open set.
        fars: False accept rates of verification.
        name: Name in tables.

    Raises:
        ConfigError: If a name is unknown or a number cannot work.
        DataError: If a file or an image is missing, a line is wrong, a template is of two people, an image stands on
            both sides, or no probe has a mate in the gallery; the message names file and line.
    """

    def __init__(
        self,
        root: Path,
        gallery: Path,
        probe: Path,
        flip: bool = False,
        fusion: Joining = "sum",
        weighting: Weighting = "none",
        ranks: tuple[int, ...] = (1, 5, 20),
        fpirs: tuple[float, ...] = (0.01, 0.1),
        fars: tuple[float, ...] = (1e-4, 1e-3, 1e-2),
        name: str = "GalleryProbe",
    ) -> None:
        one_of("fusion", fusion, JOININGS)
        one_of("weighting", weighting, WEIGHTINGS)
        for what, rates in (("fpirs", fpirs), ("fars", fars)):
            for rate in rates:
                in_range(f"one of {what}", rate, 0.0, 1.0, low_open=True)
        self.name, self.flip, self.fusion, self.weighting = name, flip, fusion, weighting
        self.ranks, self.fpirs, self.fars = check_ranks(ranks), fpirs, fars
        self.gallery, self.probe = read_template_list(gallery), read_template_list(probe)
        self.gallery_person, self.probe_person = _people(self.gallery, self.probe)
        self._rows: dict[str, int] = {}
        self.gallery_rows, self.probe_rows = (self._numbered(side) for side in (self.gallery, self.probe))
        self._refuse_shared()
        self.images: ImageSet = PathImages(root, list(self._rows), self._wanted_by)

    def _numbered(self, side: TemplateList) -> Integers:
        return np.array([self._rows.setdefault(image, len(self._rows)) for image in side.images], np.int64)

    def _refuse_shared(self) -> None:
        shared = np.flatnonzero(np.isin(self.probe_rows, self.gallery_rows))
        if len(shared):
            line, row = int(shared[0]), int(self.probe_rows[shared[0]])
            raise DataError(
                f"{self.probe.path}:{self.probe.lines[line]}: the image '{self.probe.images[line]}' is in the gallery "
                f"too ({self._wanted_by(row)}); it would find itself. So are {len(shared) - 1} others."
            )

    def _wanted_by(self, row: int) -> str:
        """File and line that name an image first."""
        for side, rows in ((self.gallery, self.gallery_rows), (self.probe, self.probe_rows)):
            if row in rows:
                return f"{side.path}:{side.lines[int(np.argmax(rows == row))]}"
        raise IndexError(row)

    def with_probes_of(self, images: ImageSet) -> Self:
        """The same templates, the images of probes from the second half of ``images``."""
        moved = copy(self)
        moved.images, moved.probe_rows = images, self.probe_rows + len(self.images)
        return moved

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Ranks, open set and verification of all templates of which an image could be read."""
        check_count(embeddings, len(self.images))
        taken = readable(embeddings)
        entries, gallery = self._templates(embeddings, self.gallery, self.gallery_rows, taken)
        probes, probe = self._templates(embeddings, self.probe, self.probe_rows, taken)
        people = self.probe_person[probes], self.gallery_person[entries]
        negatives = len(probe) * len(gallery) - _mate_count(*people)
        highest = HighestScores(scores_needed(self.fars, negatives))
        ranking = rank_mates(probe, gallery, *people, also=lambda tile: _add(highest, tile))
        found = ranking.found
        return Report(
            self.name,
            (
                *rank_metrics(found, self.ranks),
                *open_set_metrics(open_set(found, self.fpirs), len(found) - len(found.mated)),
                *self._verification(ranking, highest, negatives),
                *count_metrics(found, len(gallery), "gallery templates"),
            ),
            self._options(int((~taken).sum()), len(self.gallery) + len(self.probe) - len(gallery) - len(probe)),
            cmc_curves(found, CURVE_RANKS),
            rank_trials(found, people[0]),
            hardest(found, *self._first_images(probes, entries)),
        )

    def _templates(
        self, embeddings: Embeddings, side: TemplateList, rows: Integers, taken: Booleans
    ) -> tuple[Integers, Matrix]:
        """Numbers and vectors of the templates that have an image left."""
        left = np.unique(side.template[taken[rows]])
        means = template_means(
            embeddings,
            rows,
            side.template,
            taken[rows],
            count=len(side),
            flip=self.flip,
            fusion=self.fusion,
            weighting=self.weighting,
        )
        return left, means[left]

    def _verification(self, ranking: Ranking, highest: HighestScores, negatives: int) -> Iterator[Metric]:
        genuine = ranking.score[ranking.score > -np.inf]
        if not len(genuine):
            return
        for point in tar_from_highest(genuine, highest.falling(), negatives, self.fars):
            yield far_metric(point, negatives)

    def _first_images(self, probes: Integers, entries: Integers) -> tuple[Integers, Integers]:
        """Row of the first image of each probe and of each gallery entry."""
        return self.probe_rows[self.probe.first_line[probes]], self.gallery_rows[self.gallery.first_line[entries]]

    def _options(self, skipped: int, empty: int) -> dict[str, Any]:
        return {
            "flip": self.flip,
            **({"fusion": self.fusion} if self.flip else {}),
            "weighting": self.weighting,
            "ranks": list(self.ranks),
            "fpirs": list(self.fpirs),
            "fars": list(self.fars),
            "skipped_images": skipped,
            "templates_without_image": empty,
        }


def _add(highest: HighestScores, tile: Tile) -> None:
    # Mates are -inf in these tiles, so the highest scores are those of different pairs.
    highest.add(tile.scores, np.arange(len(tile.rows)))


def _people(gallery: TemplateList, probe: TemplateList) -> tuple[Integers, Integers]:
    """Number of each template's person, the same on both sides.

    Raises:
        DataError: If no probe's person is in the gallery.
    """
    numbers: dict[str, int] = {}
    sides = [
        np.array([numbers.setdefault(person, len(numbers)) for person in side.person], np.int64)
        for side in (gallery, probe)
    ]
    if not np.isin(sides[1], sides[0]).any():
        raise DataError(
            f"{probe.path}: none of its people is in the gallery {gallery.path}; the first is '{probe.person[0]}', "
            f"there it is '{gallery.person[0]}'."
        )
    return sides[0], sides[1]


def _mate_count(probe: Integers, gallery: Integers) -> int:
    # Probes times entries, summed over people, instead of comparing all with all.
    size = 1 + max(int(side.max(initial=0)) for side in (probe, gallery))
    return int(np.bincount(probe, minlength=size) @ np.bincount(gallery, minlength=size))
