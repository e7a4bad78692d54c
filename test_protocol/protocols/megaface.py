"""MegaFace: each FaceScrub face is searched among up to a million faces of strangers and one of the same person."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.images import PathImages
from facelab.errors import ConfigError, DataError, one_of
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Protocol, Report
from facelab.test_protocol.lists.megaface_lists import FeatureList, read_feature_list, read_noises
from facelab.test_protocol.metrics.fusion import JOININGS, Joining, readable, vectors
from facelab.test_protocol.metrics.identification import check_ranks
from facelab.test_protocol.metrics.mate_pairs import MatePairs, without_noise
from facelab.test_protocol.metrics.metrics import Booleans, Integers
from facelab.test_protocol.metrics.pair_scores import check_count
from facelab.test_protocol.metrics.score_tiles import Faces, Matrix
from facelab.test_protocol.protocols.distractors import Distracted, against_distractors, facexzoo_rates
from facelab.test_protocol.protocols.identification_report import share
from facelab.test_protocol.protocols.joint import JoinedImages
from facelab.test_protocol.protocols.megaface_report import (
    megaface_mistakes,
    megaface_trials,
    rank_curve,
    verification_at,
)

Rules = Literal["exact", "facexzoo"]


@dataclass(frozen=True)
class _Side:
    """FaceScrub's images in the gallery and as they are searched: masked, or the same.

    Attributes:
        prefix: Of the metrics' names.
        gallery: Vectors, noisy ones replaced, (N, D).
        probe: The same of the images that are searched, (N, D).
        taken: Which images could be read on both sides, (N,).
    """

    prefix: str
    gallery: Matrix
    probe: Matrix
    taken: Booleans


@PROTOCOLS.register("MegaFace")
class MegaFace(Protocol):
    """Rank-k and verification on MegaFace challenge 1 with FaceScrub, also with masked probes.

    For every ordered pair of two images of one person, one stands in the gallery beside the distractors and the other
    is searched: the pair is found at rank k where fewer than k distractors score as high as it does. Noisy images take
    part in nothing. Verification takes the same pairs against every pair of a FaceScrub image and a distractor.

    Args:
        root: Aligned images; ``facescrub_list`` and, without ``distractors``, ``megaface_list`` name them below it.
        facescrub_list: The devkit's ``facescrub_features_list.json``, with paths and ids.
        megaface_list: The devkit's ``megaface_features_list.json_1000000_1``, or several lists of different size; the
            largest gives the metrics without ``@size``.
        distractors: Folder or ``.tar`` of the aligned distractors, if it is not ``root``.
        masked: Folder or ``.tar`` with a masked copy of each FaceScrub image under the same name: adds metrics of
            masked probes against a gallery that is not masked.
        facescrub_noises: List of noisy FaceScrub images (file names).
        megaface_noises: List of noisy distractors (paths).
        flip: Whether the embeddings of an image and of its mirror image are joined; published numbers do not.
        fusion: How: ``sum``, ``normalised_sum`` or ``concat``.
        ranks: Which ranks to report.
        fars: False accept rates for verification; memory grows with the largest.
        rules: ``exact``, or ``facexzoo`` to have first what FaceX-Zoo gives: noisy FaceScrub images are replaced by the
            mean of their person and counted, noisy distractors score 0 and stay, ties count as found.
        name: Name in tables.

    Raises:
        ConfigError: If a name or number cannot work, or two lists have the same size.
        DataError: If a file or an image is missing, a list is damaged, or no person has two images without noise.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="kemelmacher2016megaface",
        title="The MegaFace Benchmark: 1 Million Faces for Recognition at Scale",
        authors="Kemelmacher-Shlizerman, Ira and Seitz, Steven M. and Miller, Daniel and Brossard, Evan",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2016,
        arxiv="1512.00596",
    )

    images: JoinedImages

    def __init__(
        self,
        root: Path,
        facescrub_list: Path,
        megaface_list: Path | tuple[Path, ...],
        distractors: Path | None = None,
        masked: Path | None = None,
        facescrub_noises: Path | None = None,
        megaface_noises: Path | None = None,
        flip: bool = False,
        fusion: Joining = "sum",
        ranks: tuple[int, ...] = (1, 5, 10),
        fars: tuple[float, ...] = (1e-6, 1e-5, 1e-4),
        rules: Rules = "exact",
        name: str = "MegaFace",
    ) -> None:
        one_of("fusion", fusion, JOININGS)
        one_of("rules", rules, ("exact", "facexzoo"))
        if any(not 0.0 < far <= 1.0 for far in fars):
            raise ConfigError(f"fars are {list(fars)}, but a rate lies in (0, 1].")
        self.name, self.flip, self.fusion, self.rules, self.fars = name, flip, fusion, rules, fars
        self.ranks = check_ranks(ranks)
        faces = read_feature_list(facescrub_list)
        self.person = _people(faces)
        noises = frozenset() if facescrub_noises is None else read_noises(facescrub_noises)
        self.noisy = np.array([posixpath.basename(image) in noises for image in faces.images], bool)
        if not len(MatePairs.of(self.person, ~self.noisy)):
            raise DataError(f"{facescrub_list}: no person has two images that are not noisy.")
        lists = (megaface_list,) if isinstance(megaface_list, Path) else megaface_list
        strangers, self.lists = _joined_lists(lists)
        noises = frozenset() if megaface_noises is None else read_noises(megaface_noises)
        self.noisy_strangers = np.array([image in noises for image in strangers], bool)
        folders = [root] if masked is None else [root, masked]
        parts = [PathImages(folder, faces.images) for folder in folders]
        self.images = JoinedImages(
            [*parts, PathImages(distractors or root, strangers)], ["", *["masked/"] * (len(parts) - 1), ""]
        )

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Ranks and verification with each list of distractors, and with masked probes if there are any."""
        check_count(embeddings, len(self.images))
        taken, starts = readable(embeddings), self.images.starts
        strangers = vectors(embeddings, self.flip, self.fusion, np.arange(starts[-2], starts[-1]))
        metrics: list[Metric] = []
        measured: list[Distracted] = []
        for side in self._sides(embeddings, taken):
            for number, rows in enumerate(self.lists):
                suffix = f"@{len(rows)}" if number else ""
                usable = rows[taken[starts[-2] + rows]]
                found, reference = self._measure(side, strangers, usable)
                metrics += self._metrics(side.prefix, suffix, found, reference)
                measured.append(found)
        main = measured[0]
        return Report(
            self.name,
            (*metrics, *self._counts(main)),
            self._options(int((~taken).sum())),
            rank_curve(main),
            megaface_trials(main),
            megaface_mistakes(main, int(starts[-2])),
        )

    def _sides(self, embeddings: Embeddings, taken: Booleans) -> Iterator[_Side]:
        count = len(self.person)
        gallery = self._clean(embeddings, 0, taken)
        yield _Side("", gallery, gallery, taken[:count])
        if len(self.images.starts) > 3:
            probe = self._clean(embeddings, count, taken)
            yield _Side("masked ", gallery, probe, taken[:count] & taken[count : 2 * count])

    def _clean(self, embeddings: Embeddings, start: int, taken: Booleans) -> Matrix:
        rows = np.arange(start, start + len(self.person))
        found = vectors(embeddings, self.flip, self.fusion, rows)
        return without_noise(found, self.person, self.noisy & taken[rows])

    def _measure(self, side: _Side, strangers: Matrix, rows: Integers) -> tuple[Distracted, list[float]]:
        """With the clean images, and FaceX-Zoo's rates if they are asked for."""
        clean = side.taken & ~self.noisy
        noisy = self.noisy_strangers[rows]
        found = against_distractors(
            side.gallery,
            side.probe,
            MatePairs.of(self.person, clean),
            clean,
            Faces.strangers(strangers, rows[~noisy]),
            self.ranks,
            self.fars,
        )
        if self.rules == "exact":
            return found, []
        pairs = MatePairs.of(self.person, side.taken)
        return found, facexzoo_rates(found, side.gallery, side.probe, pairs, int(noisy.sum()), self.ranks)

    def _metrics(self, prefix: str, suffix: str, found: Distracted, reference: list[float]) -> Iterator[Metric]:
        why_not = f"cannot be measured: there are {found.distractors:,} distractors and {len(found.pairs):,} pairs"
        for rank, rate in zip(self.ranks, reference, strict=False):
            name, note = f"{prefix}rank-{rank}{suffix} (FaceX-Zoo)", "noisy images replaced or zero, and counted"
            yield share(name, rate, note, kind="reference", why_not=why_not)
        for rank, rate in zip(self.ranks, found.rates(self.ranks), strict=True):
            yield share(f"{prefix}rank-{rank}{suffix}", rate, why_not=why_not)
        yield from verification_at(prefix, suffix, found)

    def _counts(self, main: Distracted) -> Iterator[Metric]:
        for name, count in (
            ("people", len(np.unique(main.pairs.person))),
            ("genuine pairs", len(main.pairs)),
            ("distractors", main.distractors),
            ("noisy FaceScrub images", int(self.noisy.sum())),
            ("noisy distractors", int(self.noisy_strangers.sum())),
        ):
            yield Metric(name, float(count), unit="count")

    def _options(self, skipped: int) -> dict[str, Any]:
        return {
            "flip": self.flip,
            **({"fusion": self.fusion} if self.flip else {}),
            "rules": self.rules,
            "ranks": list(self.ranks),
            "fars": list(self.fars),
            "lists": [len(rows) for rows in self.lists],
            "skipped_images": skipped,
        }


def _people(faces: FeatureList) -> Integers:
    """Number of the person on each image, by the list's ids or else by the images' folders."""
    names = faces.people or tuple(posixpath.dirname(image) for image in faces.images)
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64).reshape(-1)


def _joined_lists(paths: tuple[Path, ...]) -> tuple[list[str], list[Integers]]:
    """Every distractor once, and the rows of each list there, the longest list first.

    Raises:
        ConfigError: If there is no list, or two have the same length.
        DataError: If a list cannot be read.
    """
    lists = sorted((read_feature_list(path).images for path in paths), key=len, reverse=True)
    if not lists or len({len(one) for one in lists}) < len(lists):
        raise ConfigError(f"megaface_list needs one or more lists of different size, got {len(lists)}.")
    rows: dict[str, int] = {}
    numbers = [np.array([rows.setdefault(image, len(rows)) for image in one], np.int64) for one in lists]
    return list(rows), numbers
