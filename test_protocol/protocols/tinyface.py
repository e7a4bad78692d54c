"""TinyFace: low-resolution faces from the web are searched among 157,871 of their kind."""

from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from facelab.citation import Citation
from facelab.data.base import ImageSet
from facelab.data.formats.images import PathImages
from facelab.errors import DataError, one_of
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.lists.tinyface_lists import tinyface_lists
from facelab.test_protocol.metrics.fusion import JOININGS, Joining, readable, vectors
from facelab.test_protocol.metrics.identification import Ranking, check_ranks, closed_set, mean_known, rank_mates
from facelab.test_protocol.metrics.metrics import Integers
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.metrics.score_tiles import Matrix
from facelab.test_protocol.protocols.identification_report import (
    cmc_curves,
    count_metrics,
    hardest,
    rank_metrics,
    rank_trials,
    share,
)

Rules = Literal["exact", "tinyface"]
CURVE_RANKS = 100


@PROTOCOLS.register("TinyFace")
class TinyFace(Protocol):
    """Closed-set identification on TinyFace: rank-k and mean average precision with all distractors.

    A probe is found at rank k where one of its mates is among the k best gallery images; ties count against it. Probes
    without a mate are left out.

    Args:
        root: The aligned images: folders ``Probe``, ``Gallery_Match`` and ``Gallery_Distractor``, in a folder (also one
            level down, as ``tinyface_aligned_112`` or ``Testing_Set``) or an archive.
        lists: Folder with ``probe_img_ID_pairs.mat`` and ``gallery_match_img_ID_pairs.mat``; by default they are used
            if they lie beside the images, else the people are read from file names, ``<person>_<number>.jpg``.
        flip: Whether the embeddings of an image and of its mirror image are joined; published numbers do.
        fusion: How: ``sum`` as they are (PETALface's and AdaFace's ``pre_norm_vector_add``; their ``norm_weighted_avg``
            is the same direction), ``normalised_sum`` (their ``average``) or ``concat``.
        ranks: Which ranks to report.
        rules: ``exact``, or ``tinyface`` to have first what the script that is distributed with the data gives on
            features that are not normalised: Euclidean distance, and the area under the polygon of precision over
            recall.
        name: Name in tables.

    Raises:
        ConfigError: If a name is unknown or a rank is below 1.
        DataError: If a folder, list or image is missing, or no probe has a mate.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="cheng2018tinyface",
        title="Low-Resolution Face Recognition",
        authors="Cheng, Zhiyi and Zhu, Xiatian and Gong, Shaogang",
        venue="Asian Conference on Computer Vision",
        year=2018,
        arxiv="1811.08965",
    )

    crops = True

    def __init__(
        self,
        root: Path,
        lists: Path | None = None,
        flip: bool = True,
        fusion: Joining = "sum",
        ranks: tuple[int, ...] = (1, 5, 10, 20),
        rules: Rules = "exact",
        name: str = "TinyFace",
    ) -> None:
        one_of("fusion", fusion, JOININGS)
        one_of("rules", rules, ("exact", "tinyface"))
        self.name, self.flip, self.fusion, self.rules, self.ranks = name, flip, fusion, rules, check_ranks(ranks)
        self.listed = tinyface_lists(root, lists)
        parts = (self.listed.probe, self.listed.match, self.listed.distractor)
        if not np.isin(parts[0].person, parts[1].person).any():
            raise DataError(f"{self.listed.root}: no probe has a mate in the gallery ({self.listed.source}).")
        self.person = np.concatenate([part.person for part in parts])
        self.images: ImageSet = PathImages(self.listed.root, [image for part in parts for image in part.images])
        self.probe_rows, self.gallery_rows = np.split(np.arange(len(self.person)), [len(self.listed.probe)])

    def with_probes_of(self, images: ImageSet) -> Self:
        """The same search, the probes from the second half of ``images``."""
        moved = copy(self)
        moved.images, moved.probe_rows = images, self.probe_rows + len(self.images)
        moved.person = np.tile(self.person, 2)
        return moved

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Ranks and mean average precision of all probes with a mate."""
        check_count(embeddings, len(self.images))
        taken = readable(embeddings)
        probe, gallery = (rows[taken[rows]] for rows in (self.probe_rows, self.gallery_rows))
        ranking = self._ranking(embeddings, probe, gallery)
        return Report(
            self.name,
            (
                *(self._original(embeddings, probe, gallery) if self.rules == "tinyface" else ()),
                *rank_metrics(ranking.found, self.ranks),
                share("mAP", mean_known(ranking.average_precision())),
                _trapezoid("mAP (trapezoid)", ranking, "area under precision over recall"),
                *count_metrics(ranking.found, len(gallery), "gallery images"),
            ),
            self._options(int((~taken).sum())),
            cmc_curves(ranking.found, CURVE_RANKS),
            rank_trials(ranking.found, self.person[probe]),
            hardest(ranking.found, probe, gallery),
        )

    def _ranking(self, embeddings: Embeddings, probe: Integers, gallery: Integers) -> Ranking:
        found, among = (vectors(embeddings, self.flip, self.fusion, rows) for rows in (probe, gallery))
        return rank_mates(found, among, self.person[probe], self.person[gallery])

    def _original(self, embeddings: Embeddings, probe: Integers, gallery: Integers) -> tuple[Metric, ...]:
        """What the script distributed with the data gives on features that are not normalised."""
        found, among = (vectors(embeddings, self.flip, self.fusion, rows, raw=True) for rows in (probe, gallery))
        ranking = rank_mates(*by_distance(found, among), self.person[probe], self.person[gallery])
        note = "Euclidean distance of features that are not normalised"
        rates = closed_set(ranking.found, self.ranks)
        return (
            *(
                share(f"rank-{rank} (TinyFace script)", rate, note, kind="reference")
                for rank, rate in zip(self.ranks, rates, strict=True)
            ),
            _trapezoid("mAP (TinyFace script)", ranking, f"{note}; area under precision over recall"),
        )

    def _options(self, skipped: int) -> dict[str, Any]:
        return {
            "flip": self.flip,
            **({"fusion": self.fusion} if self.flip else {}),
            "rules": self.rules,
            "ranks": list(self.ranks),
            "people_from": self.listed.source,
            "distractors": len(self.listed.distractor),
            "skipped_images": skipped,
        }


def by_distance(probe: Matrix, gallery: Matrix) -> tuple[Matrix, Matrix]:
    """Vectors whose dot products order the gallery by rising Euclidean distance from each probe, float64.

    ``|p - g|^2 = |p|^2 - 2 (p g - |g|^2 / 2)``, and ``|p|^2`` is the same for the whole gallery.
    """
    longer, shorter = probe.astype(np.float64), gallery.astype(np.float64)
    half = np.square(shorter).sum(axis=1, keepdims=True) / 2.0
    return np.hstack((longer, np.ones((len(longer), 1)))), np.hstack((shorter, -half))


def _trapezoid(name: str, ranking: Ranking, note: str) -> Metric:
    return share(name, mean_known(ranking.trapezoid_precision()), note, kind="reference")
