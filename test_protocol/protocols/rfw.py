"""RFW: verification on four groups of people, and how far apart a model's results on them are."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.formats.text_list import text_lines
from facelab.errors import ConfigError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Metric, Report
from facelab.test_protocol.lists.pairs import PairList, family_folds
from facelab.test_protocol.metrics.pair_scores import DEFAULT_FARS, Fusion, Thresholds
from facelab.test_protocol.protocols.joint import JointVerification, joined_mistakes, joined_trials
from facelab.test_protocol.protocols.lfw import lfw_pair
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_folder
from facelab.test_protocol.protocols.verification import score_curves

GROUPS = ("African", "Asian", "Caucasian", "Indian")
OF_EACH_GROUP = ("accuracy", "TAR@", "AUC", "EER")


def read_rfw(path: Path) -> PairList:
    """RFW's ``RACE_pairs.txt``: as LFW without the header, in 10 folds of consecutive pairs.

    Raises:
        DataError: If the file is missing or a line is not a pair; the message names file and line.
    """
    named = [lfw_pair(path, number, line) for number, line in text_lines(path)]
    return PairList.of(named, family_folds(path, len(named)))


class _Group(ListedPairs):
    """One group: images ``m.0abc/m.0abc_0001.jpg``."""

    title = "RFW"
    read_pairs = staticmethod(read_rfw)
    person_of = staticmethod(person_folder)


@PROTOCOLS.register("RFW")
class RFW(JointVerification):
    """Racial Faces in-the-Wild: accuracy of each group, their mean, and their spread. All images are embedded at once.

    Args:
        root: Aligned images: a folder with ``African/m.0abc/m.0abc_0001.jpg`` …, or for each group by its name a folder
            or an archive.
        pairs: Lists: a folder with ``African/African_pairs.txt`` …, or a list for each group by its name.
        groups: Names of the groups.
        flip: Whether the embeddings of an image and of its mirror image are joined.
        fusion: How they are joined: ``sum`` as they are, or ``normalised_sum``.
        thresholds: ``exact``, or ``facexzoo``, ``insightface`` or ``magface`` to have that evaluator's number first.
        fars: False accept rates to measure the true accept rate at.
        exclude: People whose pairs are left out, by name or as a file of names or image paths.

    Raises:
        ConfigError: If no group, or a root or list of another group is given.
        DataError: If a file or an image is missing, or a line is not a pair.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wang2019rfw",
        title="Racial Faces in-the-Wild: Reducing Racial Bias by Information Maximization Adaptation Network",
        authors="Wang, Mei and Deng, Weihong and Hu, Jiani and Tao, Xunqiang and Huang, Yaohai",
        venue="IEEE/CVF International Conference on Computer Vision",
        year=2019,
    )

    def __init__(
        self,
        root: Path | dict[str, Path],
        pairs: Path | dict[str, Path],
        groups: tuple[str, ...] = GROUPS,
        flip: bool = False,
        fusion: Fusion = "sum",
        thresholds: Thresholds = "exact",
        fars: tuple[float, ...] = DEFAULT_FARS,
        exclude: Path | list[str] | None = None,
    ) -> None:
        if not groups:
            raise ConfigError("RFW needs at least one group.")
        roots = _of_groups("root", root, groups, "{}")
        lists = _of_groups("pairs", pairs, groups, "{}/{}_pairs.txt")
        super().__init__(
            "RFW",
            [_Group(roots[g], lists[g], flip, fusion, thresholds, fars, exclude, name=f"RFW {g}") for g in groups],
            [f"{group}/" for group in groups],
        )
        self.groups = groups

    def evaluate(self, embeddings: Embeddings) -> Report:
        """Mean and spread over the groups, then the numbers of each; curves are those of all pairs together."""
        reports = self.reports(embeddings)
        trials = joined_trials(reports)
        options: Mapping[str, Any] = {**reports[0].options, "groups": list(self.groups)}
        return Report(
            self.name,
            (*_spread([report.headline for report in reports]), *self._of_each(reports)),
            {**options, "pairs": len(trials["same"])},
            score_curves(trials["score"].astype(np.float64), trials["same"]),
            trials,
            joined_mistakes(reports, self.images.starts),
        )

    def _of_each(self, reports: list[Report]) -> list[Metric]:
        return [
            replace(metric, name=f"{metric.name} {group}")
            for group, report in zip(self.groups, reports, strict=True)
            for metric in report.metrics
            if metric.name.startswith(OF_EACH_GROUP)
        ]


def _of_groups(option: str, given: Path | dict[str, Path], groups: tuple[str, ...], below: str) -> dict[str, Path]:
    if isinstance(given, Path):
        return {group: given / below.format(group, group) for group in groups}
    if set(given) != set(groups):
        raise ConfigError(f"RFW {option} names {', '.join(given)}, but the groups are {', '.join(groups)}.")
    return given


def _spread(headlines: list[Metric]) -> tuple[Metric, ...]:
    """Mean over groups of a metric, and how far apart the groups are."""
    first = headlines[0]
    deviation_name, range_name = f"{first.name} deviation", f"{first.name} range"
    values = np.array([metric.value for metric in headlines if metric.value is not None])
    if len(values) < len(headlines):
        note = "cannot be measured: a group has no value"
        spreads = (
            Metric(what, None, kind=first.kind, note=note, better="low") for what in (deviation_name, range_name)
        )
        return (replace(first, value=None, spread=None, note=note), *spreads)
    deviation, least, most = float(values.std()), float(values.min()), float(values.max())
    return (
        replace(first, value=float(values.mean()), spread=deviation, note=f"mean ± deviation of {len(values)} groups"),
        Metric(deviation_name, deviation, kind=first.kind, note="over groups; 0 where all are alike", better="low"),
        Metric(
            range_name,
            most - least,
            kind=first.kind,
            note=f"from {100 * least:.2f} to {100 * most:.2f}",
            better="low",
        ),
    )
