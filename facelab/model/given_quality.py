"""Quality scores of images that are handed to a model one by one: numbers, a table, or a scorer."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelab.backbone.base import check_quality, check_scorer, takes_quality
from facelab.data.formats.images import decode_file
from facelab.errors import ConfigError, DataError
from facelab.iqa.base import SCORERS, PixelScorer, Scorer
from facelab.iqa.scored_set import ScoringOptions
from facelab.iqa.table import Table
from facelab.model.given_images import GivenImages
from facelab.model.scoring import OpenNetwork, build_scorer
from facelab.outside.yaml import parse_yaml
from facelab.quality.card import ScoreSource
from facelab.quality.table import QualityScores
from facelab.test_protocol.extraction.extraction import BatchScores

GivenScores = ScoreSource | str | Sequence[float] | NDArray[np.floating]
"""A score for each image, the path of a table, or a scorer as ``{name: options}``."""


def scores_of_given(
    network: nn.Module,
    card: Mapping[str, Any],
    quality: GivenScores | None,
    images: GivenImages,
    base: OpenNetwork | None,
) -> BatchScores | None:
    """How some images get their scores; None if the network takes none.

    Args:
        network: What embeds the images.
        card: Its description; by default images are scored by the scorer that its adapters were trained with.
        quality: What is known of the images.
        images: The images; tables know them by their paths.
        base: Opens the network that the scorer of its adapters asks, or None.

    Raises:
        ConfigError: If the network takes scores and there are none, they are of another scorer than that of its gate,
            or the network takes none and there are some.
        DataError: If there are more or fewer scores than images, or one is missing or outside of the range.
    """
    known = card.get("scorer") or {}
    given = known.get("spec") if quality is None and takes_quality(network) else quality
    check_quality(network, given=given is not None)
    if given is None:
        return None
    if not takes_quality(network):
        raise ConfigError("the network takes no quality scores; leave quality out.")
    if isinstance(given, dict | str | Path):
        scorer = _scorer(given, base)
        where = f"the quality table '{given}'" if isinstance(given, str | Path) else f"the scorer {next(iter(given))}"
        check_scorer(network, scorer.card, where)
        if isinstance(scorer, PixelScorer):
            return lambda pixels, _: scorer.score(pixels)
        values = _looked_up(scorer, images.paths)
    else:
        values = _numbers(network, given, len(images))
    all_scores = torch.from_numpy(values)
    return lambda _, batch: all_scores[batch.rows.start : batch.rows.stop]


def parse_score_source(word: str, where: str) -> ScoreSource:
    """What a word of the command line means: a path, or a scorer in braces as YAML has it.

    Raises:
        ConfigError: If the braces hold no YAML, or there is no such file but a scorer of that name.
    """
    if word.startswith("{"):
        spec: ScoreSource = parse_yaml(word, f"{where} '{word}'")
        return spec
    if word in SCORERS.names() and not Path(word).exists():
        raise ConfigError(f"{where}: there is no table '{word}'; the scorer is written '{{{word}: {{}}}}'.")
    return Path(word)


def _scorer(given: ScoreSource | str, base: OpenNetwork | None) -> Scorer:
    return Table(Path(given)) if isinstance(given, str | Path) else build_scorer(given, base)


def _numbers(network: nn.Module, given: Any, count: int) -> NDArray[np.float32]:
    """One score for each image, as the user has them."""
    values = np.asarray(given, np.float32)
    if values.shape != (count,):
        raise DataError(f"{count} images need as many quality scores, got an array of shape {values.shape}.")
    scorer = getattr(network, "quality_scorer", None)
    for row, value in enumerate(values.tolist()):
        if not (np.isfinite(value) if scorer is None else scorer.allows(value)):
            meant = "" if scorer is None else f" ({scorer.describe()})"
            raise DataError(f"the quality score of image {row} is {value:g}, which its scorer cannot give{meant}.")
    return values


def _looked_up(scorer: Scorer, paths: Sequence[str] | None) -> NDArray[np.float32]:
    """Scores by the names of the images."""
    if paths is None:
        raise ConfigError("a quality table knows images by their paths; give arrays a score each, or a scorer.")
    files = _Files(paths, scorer.names() if isinstance(scorer, Table) else ())
    values = scorer.score_set(files, ScoringOptions()).values
    QualityScores(values, scorer.card).require(files)
    return values


class _Files:
    """Image files; each has the longest end of its path that a table knows for its name.

    Args:
        paths: The files.
        known: Names in the table, which are paths below the folder that was scored.
    """

    def __init__(self, paths: Sequence[str], known: Collection[str]) -> None:
        self._paths = paths
        self._names = [self._name(path, known) for path in paths]

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """Name of an image."""
        return self._names[index]

    def fingerprint(self) -> str:
        """Of no set: tables look each name up."""
        return ""

    def read(self, index: int) -> NDArray[np.uint8]:
        """An image, for scorers that see more than a table."""
        return decode_file(self._paths[index])

    @staticmethod
    def _name(path: str, known: Collection[str]) -> str:
        parts = PurePath(path).parts
        ends = (PurePath(*parts[start:]).as_posix() for start in range(len(parts)))
        return next((end for end in ends if end in known), path)
